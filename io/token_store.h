#pragma once
// A token store: one HDF5 file with the token ids of many documents, ready to be mapped into
// memory.
//
//   user block (4,096 bytes)a few lines of text: file size, where the tokens lie, digest of the
//   rest /tokens             u16 (vocabulary <= 65,536) or u32 [n]: the documents one after another
//   /document_offsets   u64 [d + 1]: first token of each document; the last entry is n
//   /document_hashes    u64 [d]: XXH3-64 of the document's text; decides about the held-out split
//   /document_bytes     u64 [d]: length of the document's text, for bits per byte
//   /chunk_digests      u64: XXH3-64 of each MiB of /tokens
//   /provenance         JSON text: inputs with sizes and digests, options, version, time
//   attributes          tokenizer_hash, vocabulary, end_of_document (-1: none), format_version
//
// Everything but the tokens is verified when a store is opened (before the HDF5 library sees it),
// each MiB of tokens when it is first touched. Errors are data errors that name file and position.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/durable_file.h"

namespace shoestring {

inline constexpr uint64_t kTokenChunkBytes = uint64_t{1} << 20;

struct TokenStoreFacts {
  std::string tokenizer_hash;
  int64_t vocabulary = 0;
  int32_t end_of_document = -1;
  std::string provenance;  // JSON
};

// The start of a store, for its reader and writer.
struct TokenStoreBlock {
  uint64_t file_bytes = 0, tokens_at = 0, tokens_bytes = 0, rest_digest = 0;
};
inline constexpr uint64_t kTokenStoreBlockBytes = 4096;

// Where one document's facts come from while a store is written.
struct DocumentRecord {
  uint64_t tokens = 0;
  uint64_t text_hash = 0;
  uint64_t text_bytes = 0;
};

class TokenStore {
 public:
  static std::shared_ptr<const TokenStore> open(const std::string& path);

  const std::string& path() const { return path_; }
  const TokenStoreFacts& facts() const { return facts_; }
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  int64_t token_bytes() const { return wide_ ? 4 : 2; }
  // First token of document d, 0 <= d <= documents(); the end of d is the start of d + 1.
  int64_t document_start(int64_t d) const { return load(offsets_at_, d); }
  uint64_t document_hash(int64_t d) const { return static_cast<uint64_t>(load(hashes_at_, d)); }
  int64_t document_bytes(int64_t d) const { return load(bytes_at_, d); }

  // Copies tokens [first, first + count); verifies the chunks that no earlier call has touched.
  // Thread-safe. Data error for a damaged chunk or an id outside the vocabulary.
  void read(int64_t first, int64_t count, int32_t* out) const;
  void prefetch(int64_t first, int64_t count) const;
  // Verifies every chunk now.
  void verify() const;
  int64_t chunks() const { return static_cast<int64_t>(verified_.size()); }

  explicit TokenStore(const std::string& path);

 private:
  int64_t load(uint64_t position, int64_t index) const;
  void verify_chunk(int64_t chunk) const;
  void check_ids(int64_t chunk) const;
  TokenStoreBlock check_block() const;
  void check_shape() const;
  void check_documents() const;
  [[noreturn]] void fail_contradiction(const std::string& what) const;
  int32_t id_at(int64_t token) const;

  std::string path_;
  MappedFile file_;
  TokenStoreFacts facts_;
  bool wide_ = false;
  int64_t tokens_ = 0, documents_ = 0;
  uint64_t tokens_at_ = 0, offsets_at_ = 0, hashes_at_ = 0, bytes_at_ = 0, digests_at_ = 0;
  mutable std::vector<std::atomic<uint8_t>> verified_;
};

// Data error, with both hashes and the way out, unless the store was packed with this tokenizer.
void require_tokenizer(const TokenStore& store, const std::string& tokenizer_hash,
                       const std::string& tokenizer_path);
// Data error unless every id of the store fits a model with this many embedding rows.
void require_vocabulary(const TokenStore& store, int64_t vocabulary);

// Ids are stored in two bytes where they fit.
inline bool wide_tokens(int64_t vocabulary) { return vocabulary > 65536; }

}  // namespace shoestring
