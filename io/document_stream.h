#pragma once
// One side of a store's held-out split: its documents, one after another, as a single stream of
// tokens. Which side a document is on follows from the hash of its text alone, so that it never
// changes with the seed, the order of packing or the other documents, and copies stay together.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/token_store.h"

namespace shoestring {

enum class Split { train, held_out };

// Is a document with this text hash held out, for a fraction in [0, 1] of all texts?
bool is_held_out(uint64_t text_hash, double fraction);

class DocumentStream {
 public:
  DocumentStream(std::shared_ptr<const TokenStore> store, Split split, double held_out);

  const TokenStore& store() const { return *store_; }
  int64_t tokens() const { return starts_.empty() ? 0 : starts_.back(); }
  int64_t documents() const { return static_cast<int64_t>(ids_.size()); }
  int64_t text_bytes() const { return text_bytes_; }

  // The document (number within the stream) that holds a token of the stream.
  int64_t document_at(int64_t token) const;
  // Its first token in the stream; document_start(documents()) is tokens().
  int64_t document_start(int64_t document) const { return starts_[static_cast<size_t>(document)]; }
  // Its number in the store.
  int64_t store_document(int64_t document) const { return ids_[static_cast<size_t>(document)]; }
  // How many documents start in (first, last].
  int64_t starts_within(int64_t first, int64_t last) const;

  // Copies tokens [first, first + count) of the stream.
  void read(int64_t first, int64_t count, int32_t* out) const;
  void prefetch(int64_t first, int64_t count) const;

 private:
  template <class F>
  void for_each_run(int64_t first, int64_t count, F&& visit) const;

  std::shared_ptr<const TokenStore> store_;
  std::vector<int64_t> ids_;     // 16 bytes of memory a document
  std::vector<int64_t> starts_;  // documents + 1
  int64_t text_bytes_ = 0;
};

}  // namespace shoestring
