#include "io/permutation.h"

#include <bit>

#include "core/check.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring {

uint64_t combine_keys(uint64_t first, uint64_t second) {
  return mix_bits(mix_bits(first + 0x9e3779b97f4a7c15u) ^ (second + 0xd1b54a32d192ed03u));
}

Permutation::Permutation(uint64_t key, uint64_t size) : key_(key), size_(size) {
  if (size < 1 || size > uint64_t{1} << 62) fail(cat("cannot permute ", size, " positions"));
  const int bits = std::bit_width(size - 1);
  half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
  mask_ = (uint64_t{1} << half_bits_) - 1;
}

uint64_t Permutation::encrypt(uint64_t value) const {
  uint64_t left = value >> half_bits_, right = value & mask_;
  for (uint64_t round = 0; round < 6; ++round) {
    const uint64_t next = left ^ (mix_bits(key_ + round * 0x9e3779b97f4a7c15u + right) & mask_);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

uint64_t Permutation::operator()(uint64_t index) const {
  uint64_t value = index;
  do value = encrypt(value);
  while (value >= size_);
  return value;
}

}  // namespace shoestring
