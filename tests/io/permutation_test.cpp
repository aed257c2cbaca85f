#include "io/permutation.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Permutation, IsABijectionOfEverySize) {
  for (uint64_t n = 1; n <= 300; ++n) {
    for (uint64_t key : {0u, 1u, 77u}) {
      const Permutation order(key, n);
      std::vector<int> seen(n, 0);
      for (uint64_t i = 0; i < n; ++i) {
        ASSERT_LT(order(i), n);
        ++seen[order(i)];
      }
      for (int count : seen) ASSERT_EQ(count, 1) << "n = " << n;
    }
  }
  for (uint64_t n : {4095u, 4096u, 4097u, 100003u}) {
    const Permutation order(5, n);
    std::vector<int> seen(n, 0);
    for (uint64_t i = 0; i < n; ++i) ++seen[order(i)];
    for (int count : seen) ASSERT_EQ(count, 1) << "n = " << n;
  }
}

TEST(Permutation, KeysGiveUnrelatedOrders) {
  const uint64_t n = 1000;
  const Permutation a(1, n), b(2, n);
  int same = 0, fixed = 0, neighbours = 0;
  for (uint64_t i = 0; i < n; ++i) {
    same += a(i) == b(i);
    fixed += a(i) == i;
    neighbours += i > 0 && a(i) == a(i - 1) + 1;
  }
  // Each is 1 on average for random orders.
  EXPECT_LT(same, 8);
  EXPECT_LT(fixed, 8);
  EXPECT_LT(neighbours, 8);
}

TEST(Permutation, SpreadsEvenly) {
  // Where the first quarter of the positions goes: a quarter of it into each quarter.
  const uint64_t n = 40000;
  int quarters[4] = {};
  const Permutation order(99, n);
  for (uint64_t i = 0; i < n / 4; ++i) ++quarters[order(i) * 4 / n];
  for (int count : quarters) EXPECT_NEAR(count, 2500, 220);  // 5 deviations
}

TEST(Permutation, SeeksFarWithoutHistory) {
  const uint64_t n = uint64_t{1} << 61;
  const Permutation order(3, n);
  EXPECT_LT(order(n - 1), n);
  EXPECT_NE(order(n - 1), order(n - 2));
  EXPECT_THROW(Permutation(3, 0), Error);
}

TEST(Permutation, CombinedKeysDiffer) {
  EXPECT_NE(combine_keys(1, 2), combine_keys(2, 1));
  EXPECT_NE(combine_keys(0, 0), combine_keys(0, 1));
}

}  // namespace
}  // namespace shoestring
