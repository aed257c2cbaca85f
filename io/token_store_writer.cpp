#include "io/token_store_writer.h"

#include <xxhash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/hdf5_file.h"

namespace shoestring {
namespace {

// Collects values and writes them in blocks, one after another from a position of the file.
class BlockWriter {
 public:
  BlockWriter(DurableFile& file, uint64_t position) : file_(file), position_(position) {}
  void add(uint64_t value) {
    values_.push_back(value);
    if (values_.size() == 8192) flush();
  }
  void flush() {
    file_.write_at(position_, values_.data(), values_.size() * 8);
    position_ += values_.size() * 8;
    values_.clear();
  }

 private:
  DurableFile& file_;
  uint64_t position_;
  std::vector<uint64_t> values_;
};

Hdf5Layout plan(const TokenStoreParts& parts, uint64_t tokens, uint64_t documents,
                uint64_t chunks) {
  Hdf5Layout layout;
  layout.user_block = kTokenStoreBlockBytes;
  const bool wide = wide_tokens(parts.facts.vocabulary);
  layout.datasets = {
      {"tokens", {.type = wide ? Hdf5Type::u32 : Hdf5Type::u16, .items = tokens}},
      {"document_offsets", {.type = Hdf5Type::u64, .items = documents + 1}},
      {"document_hashes", {.type = Hdf5Type::u64, .items = documents}},
      {"document_bytes", {.type = Hdf5Type::u64, .items = documents}},
      {"chunk_digests", {.type = Hdf5Type::u64, .items = chunks}},
      {"provenance", {.type = Hdf5Type::text, .items = parts.facts.provenance.size()}},
  };
  layout.texts = {{"format", "shoestring token store"},
                  {"tokenizer_hash", parts.facts.tokenizer_hash}};
  layout.numbers = {{"format_version", 1},
                    {"vocabulary", parts.facts.vocabulary},
                    {"end_of_document", parts.facts.end_of_document},
                    {"chunk_bytes", static_cast<int64_t>(kTokenChunkBytes)}};
  return layout;
}

void copy_tokens(DurableFile& file, Hdf5Layout& layout, const MappedFile& tokens) {
  BlockWriter digests(file, layout.datasets["chunk_digests"].position);
  const uint64_t to = layout.datasets["tokens"].position;
  for (uint64_t at = 0; at < tokens.size(); at += kTokenChunkBytes) {
    const uint64_t bytes = std::min(kTokenChunkBytes, tokens.size() - at);
    file.write_at(to + at, tokens.data() + at, bytes);
    digests.add(XXH3_64bits(tokens.data() + at, bytes));
    tokens.release(at, bytes);  // the process stays small whatever the store's size
  }
  digests.flush();
}

void copy_documents(DurableFile& file, Hdf5Layout& layout, const MappedFile& documents) {
  BlockWriter offsets(file, layout.datasets["document_offsets"].position);
  BlockWriter hashes(file, layout.datasets["document_hashes"].position);
  BlockWriter sizes(file, layout.datasets["document_bytes"].position);
  uint64_t tokens = 0;
  for (uint64_t at = 0; at < documents.size(); at += sizeof(DocumentRecord)) {
    DocumentRecord record;
    std::memcpy(&record, documents.data() + at, sizeof record);
    offsets.add(tokens);
    hashes.add(record.text_hash);
    sizes.add(record.text_bytes);
    tokens += record.tokens;
    if (at % kTokenChunkBytes == 0) documents.release(0, at);
  }
  offsets.add(tokens);
  offsets.flush();
  hashes.flush();
  sizes.flush();
  if (tokens != layout.datasets["tokens"].items) {
    fail_data(cat("the documents have ", tokens, " tokens, but ", layout.datasets["tokens"].items,
                  " were written; start packing again"));
  }
}

void write_block(DurableFile& file, const Hdf5Layout& layout) {
  file.sync();
  const Hdf5Extent& tokens = layout.datasets.at("tokens");
  TokenStoreBlock block{
      .file_bytes = file.size(), .tokens_at = tokens.position, .tokens_bytes = tokens.bytes()};
  block.rest_digest = digest_store_rest(MappedFile(file.path()).data(), block);
  const std::string text = format_store_block(block);
  file.write_at(0, text.data(), text.size());
  file.sync();
  file.close();
}

}  // namespace

std::string format_store_block(const TokenStoreBlock& block) {
  char text[kTokenStoreBlockBytes + 1];
  const int written =
      std::snprintf(text, sizeof text,
                    "shoestring token store 1\nfile_bytes %" PRIu64 "\ntokens_at %" PRIu64
                    "\ntokens_bytes %" PRIu64 "\nrest_xxh3 %016" PRIx64,
                    block.file_bytes, block.tokens_at, block.tokens_bytes, block.rest_digest);
  std::string out(text, static_cast<size_t>(written));
  // The block vouches for itself too: a flipped bit in a number must not send a reader elsewhere.
  char own[32];
  std::snprintf(own, sizeof own, "\nblock_xxh3 %016" PRIx64 "\n",
                static_cast<uint64_t>(XXH3_64bits(out.data(), out.size())));
  out += own;
  out.resize(kTokenStoreBlockBytes, ' ');
  return out;
}

uint64_t digest_store_rest(const uint8_t* file, const TokenStoreBlock& block) {
  const uint64_t begin = kTokenStoreBlockBytes;
  const uint64_t end = block.tokens_at + block.tokens_bytes;
  uint64_t digests[2] = {XXH3_64bits(file + begin, block.tokens_at - begin),
                         XXH3_64bits(file + end, block.file_bytes - end)};
  return XXH3_64bits(digests, sizeof digests);
}

void write_token_store(const std::string& path, const TokenStoreParts& parts) {
  const MappedFile tokens(parts.tokens_path);
  const MappedFile documents(parts.documents_path);
  const uint64_t item = wide_tokens(parts.facts.vocabulary) ? 4 : 2;
  if (tokens.size() == 0 || tokens.size() % item != 0 || documents.size() == 0 ||
      documents.size() % sizeof(DocumentRecord) != 0) {
    fail_data(cat("nothing to write to ", path, ": the inputs hold no documents"));
  }
  const uint64_t chunks = (tokens.size() + kTokenChunkBytes - 1) / kTokenChunkBytes;
  Hdf5Layout layout =
      plan(parts, tokens.size() / item, documents.size() / sizeof(DocumentRecord), chunks);
  const std::string temporary = path + ".tmp";
  RemoveOnExit guard(temporary);
  write_hdf5_layout(temporary, layout);
  DurableFile file(temporary, DurableFile::Mode::keep);
  file.reserve(file.size());  // a full disk shows here, before the work starts
  copy_tokens(file, layout, tokens);
  copy_documents(file, layout, documents);
  file.write_at(layout.datasets["provenance"].position, parts.facts.provenance.data(),
                parts.facts.provenance.size());
  write_block(file, layout);
  rename_durably(temporary, path);
  guard.keep();
}

}  // namespace shoestring
