#include "core/ops/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"
#include "core/random.h"
#include "tests/support/error_model.h"

namespace shoestring {
namespace {

using testing::to_doubles;

// Odd sizes around vector widths and one beyond the grain of the parallel loop.
const int64_t sizes[] = {0, 1, 7, 16, 33, 100001};

std::vector<float> random_values(int64_t n) {
  const RandomStream random(5, "convert");
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) {
    // Any bit pattern: infinities, NaNs and subnormal numbers too.
    values.push_back(
        std::bit_cast<float>(static_cast<uint32_t>(random.bits(static_cast<uint64_t>(i)))));
  }
  const float special[] = {INFINITY, -INFINITY, NAN, -0.0f, 0.0f, 3.4e38f, 1e-40f, 1.00390625f};
  for (size_t i = 0; i < std::min(values.size(), std::size(special)); ++i) values[i] = special[i];
  return values;
}

TEST(Convert, RoundsLikeTheScalarType) {
  Device device(DeviceKind::cpu, 0, 3);
  Stream stream = Stream::immediate(device);
  for (int64_t n : sizes) {
    const auto values = random_values(n);
    const Tensor wide = Tensor::from<float>(device, {n}, values);
    const Tensor narrow = convert(stream, wide, Dtype::bf16);
    const Tensor back = convert(stream, narrow, Dtype::f32);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(narrow.span<BFloat16>()[i].bits, BFloat16(values[i]).bits) << values[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(back.span<float>()[i]),
                static_cast<uint32_t>(narrow.span<BFloat16>()[i].bits) << 16);
    }
    EXPECT_TRUE(testing::same_bits(convert(stream, wide, Dtype::f32), wide));
  }
}

TEST(Convert, DoublesBothWays) {
  Device device;
  Stream stream = Stream::immediate(device);
  const std::vector<double> values = {1.0, -2.5, 0.1, 1e300};
  const Tensor x = Tensor::from<double>(device, {4}, values);
  const Tensor f = convert(stream, x, Dtype::f32);
  EXPECT_EQ(f.span<float>()[2], 0.1f);
  EXPECT_TRUE(std::isinf(f.span<float>()[3]));
  const Tensor back = convert(stream, convert(stream, x, Dtype::bf16), Dtype::f64);
  EXPECT_EQ(back.span<double>()[1], -2.5);
  EXPECT_EQ(back.span<double>()[2], static_cast<double>(static_cast<float>(BFloat16(0.1f))));
}

TEST(Accumulate, AddsInEveryType) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  const std::pair<Dtype, Dtype> types[] = {{Dtype::f32, Dtype::f32},
                                           {Dtype::bf16, Dtype::bf16},
                                           {Dtype::f32, Dtype::bf16},
                                           {Dtype::f64, Dtype::f64}};
  for (const auto& [into_type, x_type] : types) {
    for (int64_t n : sizes) {
      std::vector<float> a, b;
      const RandomStream random(9, "accumulate");
      for (int64_t i = 0; i < n; ++i) {
        a.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(2 * i))));
        b.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(2 * i + 1))));
      }
      const Tensor into = convert(stream, Tensor::from<float>(device, {n}, a), into_type);
      const Tensor x = convert(stream, Tensor::from<float>(device, {n}, b), x_type);
      const auto before = to_doubles(into), added = to_doubles(x);
      accumulate(stream, into, x);
      const auto after = to_doubles(into);
      for (size_t i = 0; i < after.size(); ++i) {
        double want = before[i] + added[i];
        if (into_type != Dtype::f64) want = static_cast<float>(want);
        if (into_type == Dtype::bf16) want = static_cast<float>(BFloat16(static_cast<float>(want)));
        ASSERT_EQ(after[i], want) << name_of(into_type) << " " << i;
      }
    }
  }
}

TEST(Accumulate, RefusesOtherPairs) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor f(device, {4}, Dtype::f32), h(device, {4}, Dtype::bf16), g(device, {5}, Dtype::f32);
  EXPECT_THROW(accumulate(stream, h, f), Error);
  EXPECT_THROW(accumulate(stream, f, g), Error);
}

TEST(Scale, AndFill) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
    for (int64_t n : sizes) {
      const Tensor x(device, {n}, dtype);
      fill(stream, x, 1.5);
      scale(stream, x, -0.75);
      for (double v : to_doubles(x)) ASSERT_EQ(v, -1.125);
    }
  }
}

TEST(Convert, KeepsTheOrderOfAWorkerStream) {
  Device device;
  Stream stream = Stream::worker(device, "test");
  Tensor x(device, {1000}, Dtype::f32);
  fill(stream, x, 2.0);
  scale(stream, x, 3.0);
  const Tensor y = convert(stream, x, Dtype::bf16);
  stream.synchronize();
  for (double v : to_doubles(y)) ASSERT_EQ(v, 6.0);
}

}  // namespace
}  // namespace shoestring
