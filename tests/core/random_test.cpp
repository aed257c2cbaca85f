#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace shoestring {
namespace {

// The known answers of the generator's paper (Random123's kat_vectors).
TEST(Random, PhiloxKnownAnswers) {
  const Philox4 zero = philox(0, 0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const uint64_t ones = ~uint64_t{0};
  const Philox4 full = philox(ones, ones, ones);
  EXPECT_EQ(full.word[0], 0x408f276du);
  EXPECT_EQ(full.word[1], 0x41c83b0eu);
  EXPECT_EQ(full.word[2], 0xa20bc7c6u);
  EXPECT_EQ(full.word[3], 0x6d5451fdu);
}

// The first numbers of splitmix64 with the seed 0: its finaliser on multiples of the golden ratio.
TEST(Random, MixedBitsAreThoseOfSplitmix64) {
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15u), 0xe220a8397b1dcdafu);
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15u * 2), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15u * 3), 0x06c45d188009454fu);
}

TEST(Random, MomentsOfTheNormal) {
  const RandomStream stream(11, "moments");
  double sum = 0, square = 0, fourth = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal(static_cast<uint64_t>(i));
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(square / n, 1, 0.02);
  EXPECT_NEAR(fourth / n, 3, 0.15);
}

TEST(Random, StreamsDifferByNameAndSeed) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (const char* name : {"a", "b", "layers.1", "layers.11"}) {
      EXPECT_TRUE(seen.insert(RandomStream(seed, name).bits(0)).second);
    }
  }
  EXPECT_EQ(RandomStream(5, "x").bits(77), RandomStream(5, "x").bits(77));
}

TEST(Random, BelowStaysBelowAndCoversAll) {
  const RandomStream stream(2, "below");
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t x = stream.below(i, 7);
    ASSERT_LT(x, 7u);
    seen.insert(x);
  }
  EXPECT_EQ(seen.size(), 7u);
}

}  // namespace
}  // namespace shoestring
