#include "io/tokenizer/token_map.h"

#include <xxhash.h>

namespace shoestring {

void TokenBytes::set(int32_t id, std::string_view bytes) {
  tokens_[static_cast<size_t>(id)] = {arena_.size(), static_cast<uint32_t>(bytes.size())};
  arena_ += bytes;
}

void TokenMap::reset(size_t count) {
  size_t size = 2;
  while (size < count * 2) {
    size *= 2;
  }
  slots_.assign(size, none);
  mask_ = size - 1;
}

size_t TokenMap::start_of(std::string_view bytes) const {
  return XXH3_64bits(bytes.data(), bytes.size()) & mask_;
}

int32_t TokenMap::insert(const TokenBytes& tokens, int32_t id) {
  const std::string_view bytes = tokens[id];
  size_t at = start_of(bytes);
  while (slots_[at] != none) {
    if (tokens[slots_[at]] == bytes) {
      return slots_[at];
    }
    at = (at + 1) & mask_;
  }
  slots_[at] = id;
  return id;
}

int32_t TokenMap::find(const TokenBytes& tokens, std::string_view bytes) const {
  if (slots_.empty()) {
    return none;
  }
  for (size_t at = start_of(bytes); slots_[at] != none; at = (at + 1) & mask_) {
    if (tokens[slots_[at]] == bytes) {
      return slots_[at];
    }
  }
  return none;
}

}  // namespace shoestring
