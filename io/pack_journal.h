#pragma once
// What makes packing restartable: beside the raw token file stands a journal of lines, each with
// its own digest. A commit line says how much of the raw files is on the device and where in the
// inputs that is; whatever follows the last whole commit is cut off and made again.

#include <cstdint>
#include <string>
#include <vector>

#include "io/durable_file.h"
#include "io/text_source.h"

namespace shoestring {

// An input that has been packed to its end.
struct PackedInput {
  std::string path;
  uint64_t bytes = 0, digest = 0;
  int64_t modified = 0;
  int64_t documents = 0, empty = 0, cut = 0, replaced = 0;
};

struct PackState {
  int64_t created = 0;    // seconds since 1970: when packing was started first
  int64_t documents = 0;  // in the raw files
  int64_t tokens = 0;
  int64_t text_bytes = 0;
  int64_t input_documents = 0;      // of them, those of the input that is not finished
  std::vector<PackedInput> inputs;  // finished ones, in order
  // Of a document that has not ended: how much of it is in the raw token file, behind the others.
  struct Open {
    int64_t tokens = 0, text_bytes = 0;
    uint64_t text_hash = 0;  // of those bytes
  } open;
};

class PackJournal {
 public:
  // Opens or makes the folder's journal. `signature` names everything that decides about the token
  // ids; data error when the folder belongs to another signature, when another process packs into
  // it, or when the raw files lack what the journal promises. `anew`: forgets what it held, once no
  // other process packs into it.
  PackJournal(const std::string& folder, const std::string& signature, int64_t created,
              int64_t token_bytes, bool anew = false);

  const PackState& state() const { return state_; }
  // Syncs the raw files, then writes the inputs finished since the last commit and the commit.
  void commit(const PackState& state);
  DurableFile& tokens() { return tokens_; }
  DurableFile& documents() { return documents_; }

 private:
  void recover(const std::string& signature, int64_t created);
  void append_line(const std::string& json);
  [[noreturn]] void refuse(const std::string& why) const;

  std::string folder_;
  DurableFile file_, tokens_, documents_;
  PackState state_;
};

}  // namespace shoestring
