#include "io/token_store.h"

#include <xxhash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/hdf5_file.h"
#include "io/token_store_writer.h"

namespace shoestring {
namespace {

constexpr char kPackAgain[] = "; pack the text again or restore the file from a copy";

TokenStoreBlock parse_store_block(const MappedFile& file, const std::string& path) {
  if (file.size() < kTokenStoreBlockBytes) {
    fail_data(cat(path, " is no token store: it has only ",
                  counted(static_cast<int64_t>(file.size()), "byte")));
  }
  const std::string text(reinterpret_cast<const char*>(file.data()), kTokenStoreBlockBytes);
  if (!text.starts_with("shoestring token store ")) {
    fail_data(cat(path, " is no token store (write one with `shoestring data pack`)"));
  }
  TokenStoreBlock block;
  std::sscanf(text.c_str(),
              "shoestring token store 1\nfile_bytes %" SCNu64 "\ntokens_at %" SCNu64
              "\ntokens_bytes %" SCNu64 "\nrest_xxh3 %" SCNx64,
              &block.file_bytes, &block.tokens_at, &block.tokens_bytes, &block.rest_digest);
  const bool inside = block.tokens_at >= kTokenStoreBlockBytes &&
                      block.tokens_at <= block.file_bytes &&
                      block.tokens_bytes <= block.file_bytes - block.tokens_at;
  if (!inside || format_store_block(block) != text) {
    fail_data(cat(path, ": the first ", kTokenStoreBlockBytes,
                  " bytes are damaged or of another version", kPackAgain));
  }
  return block;
}

}  // namespace

std::shared_ptr<const TokenStore> TokenStore::open(const std::string& path) {
  return std::make_shared<TokenStore>(path);
}

TokenStore::TokenStore(const std::string& path) : path_(path), file_(path) {
  const TokenStoreBlock block = check_block();
  Hdf5Layout layout = read_hdf5_layout(path, {"tokens", "document_offsets", "document_hashes",
                                              "document_bytes", "chunk_digests", "provenance"});
  auto& sets = layout.datasets;
  wide_ = sets["tokens"].type == Hdf5Type::u32;
  tokens_ = static_cast<int64_t>(sets["tokens"].items);
  documents_ = static_cast<int64_t>(sets["document_hashes"].items);
  tokens_at_ = sets["tokens"].position;
  offsets_at_ = sets["document_offsets"].position;
  hashes_at_ = sets["document_hashes"].position;
  bytes_at_ = sets["document_bytes"].position;
  digests_at_ = sets["chunk_digests"].position;
  const Hdf5Extent& text = sets["provenance"];
  facts_ = {.tokenizer_hash = layout.texts["tokenizer_hash"],
            .vocabulary = layout.numbers["vocabulary"],
            .end_of_document = static_cast<int32_t>(layout.numbers["end_of_document"]),
            .provenance = std::string(reinterpret_cast<const char*>(file_.data()) + text.position,
                                      text.items)};
  verified_ = std::vector<std::atomic<uint8_t>>(sets["chunk_digests"].items);
  for (const char* name :
       {"document_offsets", "document_hashes", "document_bytes", "chunk_digests"}) {
    if (sets[name].type != Hdf5Type::u64) fail_contradiction(cat(name, " are not 64-bit numbers"));
  }
  if (tokens_at_ != block.tokens_at || sets["tokens"].bytes() != block.tokens_bytes ||
      (!wide_ && sets["tokens"].type != Hdf5Type::u16)) {
    fail_contradiction("the tokens are not where the start of the file says");
  }
  if (sets["document_offsets"].items != sets["document_hashes"].items + 1 ||
      sets["document_bytes"].items != sets["document_hashes"].items) {
    fail_contradiction("there is not one offset, hash and length a document");
  }
  check_shape();
  check_documents();
}

TokenStoreBlock TokenStore::check_block() const {
  const TokenStoreBlock block = parse_store_block(file_, path_);
  if (block.file_bytes != file_.size()) {
    fail_data(cat(path_, " is truncated or was appended to: it has ", file_.size(), " bytes, not ",
                  block.file_bytes, kPackAgain));
  }
  if (digest_store_rest(file_.data(), block) != block.rest_digest) {
    fail_data(cat(path_, ": the index (all bytes but ", block.tokens_at, " to ",
                  block.tokens_at + block.tokens_bytes, ") is damaged: its digest differs",
                  kPackAgain));
  }
  return block;
}

void TokenStore::fail_contradiction(const std::string& what) const {
  fail_data(
      cat(path_, ": the parts of the token store contradict one another: ", what, kPackAgain));
}

void TokenStore::check_shape() const {
  const uint64_t bytes = static_cast<uint64_t>(tokens_ * token_bytes());
  if (tokens_ <= 0 || documents_ <= 0) fail_contradiction("there are no tokens or no documents");
  if (facts_.vocabulary <= 0) fail_contradiction("there is no vocabulary");
  if (verified_.size() != (bytes + kTokenChunkBytes - 1) / kTokenChunkBytes) {
    fail_contradiction("there is not one digest a chunk");
  }
}

// The digest vouches for what was written, not for who wrote it: readers index with these numbers.
void TokenStore::check_documents() const {
  int64_t text = 0;
  for (int64_t d = 0; d < documents_; ++d) {
    const int64_t begin = document_start(d), end = document_start(d + 1);
    if (begin > end || (d == 0 && begin != 0)) {
      fail_contradiction(cat("document ", d, " has tokens ", begin, " to ", end));
    }
    if (document_bytes(d) < 0 || __builtin_add_overflow(text, document_bytes(d), &text)) {
      fail_contradiction(cat("document ", d, " has ", document_bytes(d), " bytes of text"));
    }
  }
  if (document_start(documents_) != tokens_) {
    fail_contradiction(
        cat("the documents end at token ", document_start(documents_), " of ", tokens_));
  }
}

int64_t TokenStore::load(uint64_t position, int64_t index) const {
  int64_t value = 0;
  std::memcpy(&value, file_.data() + position + 8 * static_cast<uint64_t>(index), 8);
  return value;
}

int32_t TokenStore::id_at(int64_t token) const {
  const uint8_t* at = file_.data() + tokens_at_ + static_cast<uint64_t>(token * token_bytes());
  uint32_t id = 0;
  std::memcpy(&id, at, static_cast<size_t>(token_bytes()));
  return static_cast<int32_t>(id);
}

void TokenStore::read(int64_t first, int64_t count, int32_t* out) const {
  if (first < 0 || count < 0 || count > tokens_ - first) {
    fail(cat(path_, ": tokens ", first, " to ", first + count, " of ", tokens_));
  }
  if (count == 0) return;
  file_.require_whole();
  const int64_t per_chunk = static_cast<int64_t>(kTokenChunkBytes) / token_bytes();
  for (int64_t c = first / per_chunk; c <= (first + count - 1) / per_chunk; ++c) {
    // Two threads may verify the same chunk at once: both find the same answer.
    if (verified_[static_cast<size_t>(c)].load(std::memory_order_acquire) == 0) verify_chunk(c);
  }
  const uint8_t* from = file_.data() + tokens_at_ + static_cast<uint64_t>(first * token_bytes());
  if (wide_) {
    std::memcpy(out, from, static_cast<size_t>(count) * 4);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t id = 0;
    std::memcpy(&id, from + 2 * i, 2);
    out[i] = id;
  }
}

void TokenStore::prefetch(int64_t first, int64_t count) const {
  file_.prefetch(tokens_at_ + static_cast<uint64_t>(first * token_bytes()),
                 static_cast<uint64_t>(count * token_bytes()));
}

void TokenStore::verify() const {
  for (int64_t c = 0; c < chunks(); ++c) verify_chunk(c);
}

void TokenStore::verify_chunk(int64_t chunk) const {
  const uint64_t begin = static_cast<uint64_t>(chunk) * kTokenChunkBytes;
  const uint64_t end =
      std::min(begin + kTokenChunkBytes, static_cast<uint64_t>(tokens_ * token_bytes()));
  const uint64_t digest = XXH3_64bits(file_.data() + tokens_at_ + begin, end - begin);
  if (digest != static_cast<uint64_t>(load(digests_at_, chunk))) {
    fail_data(cat(path_, ": chunk ", chunk, " of the tokens (bytes ", tokens_at_ + begin, " to ",
                  tokens_at_ + end, " of the file) is damaged: its digest differs", kPackAgain));
  }
  check_ids(chunk);
  verified_[static_cast<size_t>(chunk)].store(1, std::memory_order_release);
}

void TokenStore::check_ids(int64_t chunk) const {
  if (!wide_ && facts_.vocabulary >= 65536) return;
  const int64_t per_chunk = static_cast<int64_t>(kTokenChunkBytes) / token_bytes();
  const int64_t end = std::min(tokens_, (chunk + 1) * per_chunk);
  for (int64_t t = chunk * per_chunk; t < end; ++t) {
    const uint32_t id = static_cast<uint32_t>(id_at(t));
    if (id >= static_cast<uint64_t>(facts_.vocabulary)) {
      fail_data(cat(path_, ": token ", t, " has id ", id, ", but the vocabulary has only ",
                    facts_.vocabulary, " ids", kPackAgain));
    }
  }
}

void require_tokenizer(const TokenStore& store, const std::string& tokenizer_hash,
                       const std::string& tokenizer_path) {
  if (store.facts().tokenizer_hash == tokenizer_hash) return;
  fail_data(cat(store.path(), " was packed with the tokenizer ", store.facts().tokenizer_hash,
                ", but ", tokenizer_path, " is ", tokenizer_hash,
                "; use the tokenizer it was packed with, or pack the text again with this one"));
}

void require_vocabulary(const TokenStore& store, int64_t vocabulary) {
  if (store.facts().vocabulary <= vocabulary) return;
  fail_data(cat(store.path(), " has token ids up to ", store.facts().vocabulary - 1,
                ", but the model's vocabulary has only ", vocabulary,
                " ids; set model.vocabulary to at least ", store.facts().vocabulary));
}

}  // namespace shoestring
