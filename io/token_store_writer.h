#pragma once
// Closes two raw files, written by appending, into one token store. Bounded memory whatever the
// size; the file appears under its name only when it is complete and on the device.

#include <functional>
#include <string>

#include "io/token_store.h"

namespace shoestring {

struct TokenStoreParts {
  std::string tokens_path;     // little-endian ids, 2 or 4 bytes each (wide_tokens)
  std::string documents_path;  // DocumentRecord after DocumentRecord
  TokenStoreFacts facts;
};

// The start of a store, for its reader and writer.
struct TokenStoreBlock {
  uint64_t file_bytes = 0, tokens_at = 0, tokens_bytes = 0, rest_digest = 0;
};
inline constexpr uint64_t kTokenStoreBlockBytes = 4096;
std::string format_store_block(const TokenStoreBlock& block);  // exactly that long
// Digest of everything in the file but the block itself and the tokens.
uint64_t digest_store_rest(const uint8_t* file, const TokenStoreBlock& block);

// Data error when the disk is full (nothing stays under `path` or its temporary name) and when the
// raw files do not fit together. `path` is replaced if it exists.
void write_token_store(const std::string& path, const TokenStoreParts& parts);

}  // namespace shoestring
