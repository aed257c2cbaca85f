#pragma once
// A keyed bijection of [0, n) that needs no table: an unbalanced number of positions is shuffled
// with O(1) memory and any position is found without the ones before it.
//
// Feistel network over 2h bits, 2h the smallest even number with 4^h >= n, six rounds with a
// mixing function of (key, round, half); results >= n are sent round again ("cycle walking", Black
// and Rogaway 2002, "Ciphers with arbitrary finite domains"), fewer than four times on average.

#include <cstdint>

namespace shoestring {

class Permutation {
 public:
  // 1 <= size <= 2^62.
  Permutation(uint64_t key, uint64_t size);
  // Where position `index` goes, 0 <= index < size.
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;
  uint64_t key_, size_, mask_;
  int half_bits_;
};

// One well-mixed 64-bit key out of several facts (seed, source, epoch, ...).
uint64_t combine_keys(uint64_t first, uint64_t second);

}  // namespace shoestring
