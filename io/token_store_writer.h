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

std::string format_store_block(const TokenStoreBlock& block);  // exactly that long
// Digest of everything in the file but the block itself and the tokens.
uint64_t digest_store_rest(const uint8_t* file, const TokenStoreBlock& block);

// Data error when the disk is full (nothing stays under `path` or its temporary name) and when the
// raw files do not fit together. `path` is replaced if it exists.
void write_token_store(const std::string& path, const TokenStoreParts& parts);

}  // namespace shoestring
