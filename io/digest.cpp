#include "io/digest.h"

#include <xxhash.h>

#include "core/check.h"

namespace shoestring {
namespace {

// The canonical form: the high half first, so that it equals what the xxhsum tool prints.
std::string text_of(XXH128_hash_t hash) {
  constexpr std::string_view digits = "0123456789abcdef";
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  std::string text;
  for (unsigned char byte : bytes.digest) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace

struct Digest::State {
  State() : hash(XXH3_createState()) {
    check(hash != nullptr && XXH3_128bits_reset(hash) == XXH_OK, "no memory for a digest");
  }
  ~State() { XXH3_freeState(hash); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* hash;
};

Digest::Digest() : state_(std::make_unique<State>()) {}
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::add(const void* data, size_t bytes) {
  if (bytes > 0) XXH3_128bits_update(state_->hash, data, bytes);
}

std::string Digest::text() const { return text_of(XXH3_128bits_digest(state_->hash)); }

std::string digest_of(std::string_view bytes) {
  return text_of(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace shoestring
