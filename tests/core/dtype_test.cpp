#include "core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"
#include "core/random.h"

namespace shoestring {
namespace {

// The definition, by search over all codes: the nearest finite value, ties to the even code.
template <class F>
uint8_t nearest_code(float x) {
  int best = -1;
  double best_distance = 0;
  for (int code = 0; code < 128; ++code) {
    F f;
    f.bits = static_cast<uint8_t>(code);
    const float value = static_cast<float>(f);
    if (!std::isfinite(value)) continue;
    const double distance = std::fabs(std::fabs(static_cast<double>(x)) - value);
    if (best < 0 || distance < best_distance || (distance == best_distance && code % 2 == 0)) {
      best = code;
      best_distance = distance;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

template <class F>
void check_float8() {
  const RandomStream random(1, "float8");
  for (uint64_t i = 0; i < 20000; ++i) {
    const auto x = static_cast<float>(
        std::ldexp(random.normal(2 * i), static_cast<int>(random.below(2 * i + 1, 40)) - 24));
    EXPECT_EQ(F(x).bits, nearest_code<F>(x)) << x;
  }
  for (int code = 0; code < 256; ++code) {  // every code survives the round trip
    F f;
    f.bits = static_cast<uint8_t>(code);
    const float value = static_cast<float>(f);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(F(value))));
    } else if (std::isfinite(value)) {
      EXPECT_EQ(F(value).bits, code);
    }
  }
  EXPECT_EQ(static_cast<float>(F(1e30f)), F::max);
  EXPECT_EQ(static_cast<float>(F(-std::numeric_limits<float>::infinity())), -F::max);
}

TEST(Dtype, Float8E4M3RoundsToNearestEven) { check_float8<Float8E4M3>(); }
TEST(Dtype, Float8E5M2RoundsToNearestEven) { check_float8<Float8E5M2>(); }

TEST(Dtype, Float8KnownCodes) {
  EXPECT_EQ(Float8E4M3(448.0f).bits, 0x7e);
  EXPECT_EQ(Float8E4M3(0.001953125f).bits, 0x01);  // 2^-9, the smallest subnormal
  EXPECT_EQ(Float8E5M2(57344.0f).bits, 0x7b);
}

TEST(Dtype, Bfloat16RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(BFloat16(1.00390625f)), 1.0f);       // half-way, even below
  EXPECT_EQ(static_cast<float>(BFloat16(1.01171875f)), 1.015625f);  // half-way, even above
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::nanf("")))));
  EXPECT_TRUE(std::isinf(static_cast<float>(BFloat16(3.4e38f))));
}

TEST(Dtype, StochasticRoundingIsUnbiased) {
  const float x = 1.003f;  // between 1.0 and 1.0078125, P(up) = 0.384003
  int up = 0;
  const RandomStream random(7, "rounding");
  const int draws = 200000;
  for (int i = 0; i < draws; ++i) {
    const auto r = static_cast<uint32_t>(random.bits(static_cast<uint64_t>(i)) & 0xffff);
    up += static_cast<float>(round_stochastic(x, r)) > 1.0f ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(up) / draws, 0.384003, 0.005);
}

TEST(Dtype, HalfRoundTripsEveryCode) {
  for (int code = 0; code < 65536; ++code) {
    const float value = half_to_float(static_cast<uint16_t>(code));
    if (!std::isnan(value)) {
      EXPECT_EQ(float_to_half(value), code);
    }
  }
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
}

TEST(Dtype, NamesRoundTripAndUnknownNamesListTheKnown) {
  EXPECT_EQ(dtype_from_name("bf16"), Dtype::bf16);
  EXPECT_EQ(size_of(Dtype::f8e4m3), 1u);
  try {
    dtype_from_name("fp32");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("f32, f64, bf16"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace shoestring
