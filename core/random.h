#pragma once
// Counter-based random numbers: every value is a function of (seed, name, global index), so the
// same numbers come out however a tensor is sharded, in whatever order, after any restart.

#include <cstdint>
#include <string_view>

namespace shoestring {

// Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
struct Philox4 {
  uint32_t word[4];
};
Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// A bijection of 64 bits in which each input bit moves every output bit (the finaliser of
// splitmix64, Stafford's variant 13).
uint64_t mix_bits(uint64_t x);

// 64-bit mixing of a name, so that streams with different names are unrelated.
uint64_t hash_name(std::string_view name);

class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name);
  // Uniform 64 bits / [0, 1) with 53 bits / standard normal (Box-Muller) at a global index.
  uint64_t bits(uint64_t index) const;
  double uniform(uint64_t index) const;
  double normal(uint64_t index) const;
  // Uniform integer in [0, n), n > 0 (multiply-shift; bias below 2^-32 for n < 2^32).
  uint64_t below(uint64_t index, uint64_t n) const;

 private:
  uint64_t key_;
};

}  // namespace shoestring
