#pragma once
// The reading side of packing: documents to work, hashes, and the way past what is packed already.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "io/pack.h"
#include "io/pack_journal.h"
#include "io/token_store.h"

struct XXH3_state_s;

namespace shoestring {

class PackReader {
 public:
  // `state` is where packing stands; later only the writer touches it, through the marks of ends of
  // inputs that travel with the work.
  PackReader(const PackOptions& options, const std::vector<TextInput>& inputs, PackState& state,
             PackPipeline& to);

  // Reads the inputs from number `first` on. `packed` holds the records of the documents of that
  // one which are packed already; of the next one, state.open says how much is. Data error when
  // those documents are others now.
  void run(size_t first, std::vector<DocumentRecord> packed);
  std::atomic<uint64_t> bytes_read{0};

 private:
  void read_one(const TextInput& input);
  void add(const TextInput& input, TextPiece&& piece);
  bool was_packed(const TextInput& input, const PackItem& item);
  void flush(std::function<void()> at_end);
  [[noreturn]] void refuse(const TextInput& input) const;

  struct HashDeleter {
    void operator()(XXH3_state_s* state) const;
  };
  const PackOptions& options_;
  const std::vector<TextInput>& inputs_;
  PackState& state_;
  PackPipeline& to_;
  PackState::Open open_;  // of the document behind packed_, until the reader is past it
  TextOptions text_;
  std::unique_ptr<XXH3_state_s, HashDeleter> hash_;  // of the document so far
  std::vector<DocumentRecord> packed_;
  uint64_t bytes_ = 0;   // of the document so far
  size_t document_ = 0;  // of the input
  PackWork work_;
};

}  // namespace shoestring
