#include "core/statistic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using testing::make_tensor;
using testing::random_values;

TEST(Statistic, IsThatOfTheSumOfBothTensors) {
  Device device(DeviceKind::cpu, 0, 3);
  const int64_t n = 2 * 16384 + 1003;  // two whole blocks and odd ends
  const auto x = random_values(n, 1), delta = random_values(n, 2, 3);
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
    const Tensor a = make_tensor(device, {n}, dtype, x), b = make_tensor(device, {n}, dtype, delta);
    const auto av = testing::values_of(a), bv = testing::values_of(b);
    for (double multiplier : {0.0, 0.25}) {
      double squares = 0, largest = 0;
      for (size_t i = 0; i < av.size(); ++i) {
        const double value = av[i] + multiplier * bv[i];
        squares += value * value;
        largest = std::max(largest, std::abs(value));
      }
      const Statistic got = statistic_of(device, a, multiplier == 0 ? Tensor() : b, multiplier);
      EXPECT_NEAR(got.squares, squares, 1e-12 * squares) << name_of(dtype);
      EXPECT_EQ(got.largest, largest) << name_of(dtype);
      EXPECT_EQ(got.count, n);
      EXPECT_NEAR(got.rms(), std::sqrt(squares / static_cast<double>(n)), 1e-12 * got.rms());
    }
  }
}

TEST(Statistic, ThreadsChangeNoBit) {
  const int64_t n = 100000;
  const auto x = random_values(n, 3);
  auto squares = [&](int threads) {
    Device device(DeviceKind::cpu, 0, threads);
    return statistic_of(device, make_tensor(device, {n}, Dtype::f32, x)).squares;
  };
  for (int threads : {2, 3, 4}) EXPECT_EQ(squares(threads), squares(1));
}

TEST(Statistic, PartsAddUpAndNothingIsNothing) {
  Statistic sum{.squares = 9, .count = 1, .largest = 3};
  sum.add({.squares = 16, .count = 1, .largest = 4});
  sum.add({.squares = 2, .count = 2, .largest = 1});
  EXPECT_EQ(sum.squares, 27);
  EXPECT_EQ(sum.count, 4);
  EXPECT_EQ(sum.largest, 4);
  EXPECT_EQ(Statistic().rms(), 0);
}

TEST(Statistic, ShapesMustAgree) {
  Device device;
  const Tensor x = Tensor::zeros(device, {4}, Dtype::f32);
  EXPECT_THROW(statistic_of(device, x, Tensor::zeros(device, {3}, Dtype::f32)), Error);
  EXPECT_THROW(statistic_of(device, x, Tensor::zeros(device, {4}, Dtype::bf16)), Error);
}

}  // namespace
}  // namespace shoestring
