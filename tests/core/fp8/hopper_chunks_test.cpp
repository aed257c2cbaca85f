#include "core/fp8/hopper_chunks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/fp8/small_float.h"
#include "core/random.h"

namespace shoestring {
namespace {

std::vector<uint8_t> codes_of(const std::vector<float>& values, const SmallFloat& f = e4m3_facts) {
  std::vector<uint8_t> codes;
  for (float x : values) codes.push_back(static_cast<uint8_t>(encode(f, x)));
  return codes;
}

float block(float c, const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, int bits = 13) {
  return hopper_block(
      c, {.a = a.data(), .b = b.data(), .count = static_cast<int64_t>(a.size()), .bits = bits});
}

// The model of the fact sheet in floating point: every term truncated towards zero to a multiple of
// 2^(E - F), the sum truncated to F fraction bits.
double model(double c, const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, int bits) {
  auto exponent = [](uint8_t code) { return std::max((code & 0x7f) >> 3, 1) - 7; };
  int most = c == 0 ? -10000 : std::ilogb(c);
  for (size_t i = 0; i < a.size(); ++i) {
    if ((a[i] & 0x7f) != 0 && (b[i] & 0x7f) != 0) {
      most = std::max(most, exponent(a[i]) + exponent(b[i]));
    }
  }
  if (most == -10000) return 0;
  const double unit = std::ldexp(1.0, most - bits);
  double sum = std::trunc(c / unit);
  for (size_t i = 0; i < a.size(); ++i) {
    sum += std::trunc(static_cast<double>(decode(e4m3_facts, a[i])) *
                      static_cast<double>(decode(e4m3_facts, b[i])) / unit);
  }
  if (sum == 0) return 0;
  const double last = std::ldexp(1.0, std::max(0, std::ilogb(sum) - bits));
  return std::trunc(sum / last) * last * unit;
}

TEST(HopperChunks, GivesWhatTheTensorCoreGives) {
  std::vector<float> a(32, 7.5f), b(32, 1.0f);
  a[0] = b[0] = 448;
  EXPECT_EQ(block(0, codes_of(a), codes_of(b)), 200704.0f);  // the exact sum is 200936.5
  EXPECT_EQ(block(0, codes_of(a), codes_of(b), 23), 200936.5f);
  EXPECT_EQ(block(0, codes_of({1}), codes_of({1})), 1.0f);
  // Below the 13th bit of the sum so far everything is lost, towards zero from both sides.
  EXPECT_EQ(block(1, codes_of({0x1p-7f}), codes_of({0x1p-7f})), 1.0f);
  EXPECT_EQ(block(1, codes_of({-0x1p-7f}), codes_of({0x1p-7f})), 1.0f);
  EXPECT_EQ(block(1, codes_of({0x1p-6f}), codes_of({0x1p-7f})), 1.0f + 0x1p-13f);
  EXPECT_EQ(block(0, codes_of({0}), codes_of({1})), 0.0f);
  EXPECT_TRUE(std::isnan(block(0, {0x7f}, codes_of({0}))));
}

TEST(HopperChunks, FollowsTheModelOnRandomBlocks) {
  const RandomStream random(3, "codes");
  uint64_t draw = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint8_t> a, b;
    const uint64_t count = 1 + random.below(draw++, 32);
    for (uint64_t i = 0; i < count; ++i) {
      auto code = [&] {
        const auto c = static_cast<uint8_t>(random.below(draw++, 256));
        return (c & 0x7f) == 0x7f ? uint8_t{0} : c;
      };
      a.push_back(code());
      b.push_back(code());
    }
    const int bits = 3 + static_cast<int>(random.below(draw++, 21));
    const auto c = round % 3 == 0 ? 0.0f : static_cast<float>(random.normal(draw++) * 1000);
    ASSERT_EQ(static_cast<double>(block(c, a, b, bits)), model(static_cast<double>(c), a, b, bits))
        << round << " bits " << bits;
  }
}

// Blocks of 32 carry on the truncated sum; the scaled chunks are added in f32.
TEST(HopperChunks, CarriesSumsThroughAChunk) {
  const int64_t k = 200;
  const RandomStream random(4, "values");
  std::vector<float> x, y;
  for (int64_t i = 0; i < k; ++i) {
    x.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(2 * i))));
    y.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(2 * i + 1))));
  }
  const auto a = codes_of(x), b = codes_of(y);
  const float rows[2] = {0.5f, 3};
  std::vector<float> columns(128, 0.25f);
  float got = 0;
  hopper_chunks({.a = a.data(),
                 .a_row = k,
                 .a_step = 1,
                 .b = b.data(),
                 .b_step = 1,
                 .b_column = k,
                 .m = 1,
                 .n = 1,
                 .k = k,
                 .chunk = 128,
                 .rows = rows,
                 .rows_stride = 1,
                 .columns = columns.data(),
                 .columns_stride = 64,
                 .sums = &got,
                 .sums_stride = 1},
                13);
  auto part = [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t at = begin; at < end; at += 32) {
      const auto stop = std::min(at + 32, end);
      sum = model(sum, {a.begin() + at, a.begin() + stop}, {b.begin() + at, b.begin() + stop}, 13);
    }
    return static_cast<float>(sum);
  };
  const float first = part(0, 128) * 0.125f;
  EXPECT_EQ(got, first + part(128, 200) * 0.75f);
}

}  // namespace
}  // namespace shoestring
