#include "io/hugging_face/fp8_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace shoestring {
namespace {

constexpr Fp8Layout cut_layout{
    .rows = 200, .columns = 150, .blocks = {.rows = 128, .columns = 128}};

std::vector<float> random_values(int64_t count) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& x : values) x = normal(random);
  return values;
}

TEST(Fp8Blocks, MultiplyEachCodeByItsBlocksScale) {
  constexpr Fp8Layout layout{.rows = 3, .columns = 5, .blocks = {.rows = 2, .columns = 2}};
  ASSERT_EQ(layout.scale_rows(), 2);
  ASSERT_EQ(layout.scale_columns(), 3);
  const std::vector<float> scales = {1, 2, 4, 8, 16, 0.1f};
  std::vector<uint8_t> codes(15);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = Float8E4M3(static_cast<float>(i)).bits;
  // Any part, also one that begins inside of a row.
  for (int64_t begin = 0; begin < 15; ++begin) {
    for (int64_t end = begin; end <= 15; ++end) {
      std::vector<float> out(static_cast<size_t>(end - begin));
      dequantise_blocks(layout, std::span(codes).subspan(static_cast<size_t>(begin), out.size()),
                        scales, begin, out.data());
      for (int64_t i = begin; i < end; ++i) {
        const auto block = static_cast<size_t>(i / 5 / 2 * 3 + i % 5 / 2);
        EXPECT_EQ(out[static_cast<size_t>(i - begin)], static_cast<float>(i) * scales[block]);
      }
    }
  }
}

TEST(Fp8Blocks, ScalesMakeTheLargestMagnitude448) {
  const std::vector<float> values = random_values(200 * 150);
  std::vector<uint8_t> codes;
  std::vector<float> scales, back(values.size());
  quantise_blocks(cut_layout, values, codes, scales);
  ASSERT_EQ(scales.size(), 4u);
  dequantise_blocks(cut_layout, codes, scales, 0, back.data());
  for (size_t block = 0; block < 4; ++block) {
    const size_t r0 = block / 2 * 128, c0 = block % 2 * 128;
    float largest = 0;
    for (size_t r = r0; r < std::min<size_t>(r0 + 128, 200); ++r) {
      for (size_t c = c0; c < std::min<size_t>(c0 + 128, 150); ++c) {
        largest = std::max(largest, std::abs(values[r * 150 + c]));
        // Half a step of three bits, or of the smallest numbers.
        const float limit = std::max(std::abs(values[r * 150 + c]) / 16, scales[block] / 1024);
        EXPECT_LE(std::abs(back[r * 150 + c] - values[r * 150 + c]), limit * 1.0001f);
      }
    }
    EXPECT_EQ(scales[block], largest / 448);
  }
}

TEST(Fp8Blocks, ComeBackAsTheSameCodes) {
  const std::vector<float> values = random_values(200 * 150);
  std::vector<uint8_t> codes, again;
  std::vector<float> scales, scales_again, back(values.size());
  quantise_blocks(cut_layout, values, codes, scales);
  dequantise_blocks(cut_layout, codes, scales, 0, back.data());
  quantise_blocks(cut_layout, back, again, scales_again);
  EXPECT_EQ(codes, again);
  // Strip by strip as well as at once.
  std::vector<uint8_t> strip;
  std::vector<float> strip_scales;
  quantise_blocks(cut_layout, std::span(values).first(128 * 150), strip, strip_scales);
  EXPECT_TRUE(std::equal(strip.begin(), strip.end(), codes.begin()));
  quantise_blocks(cut_layout, std::span(values).subspan(128 * 150), strip, strip_scales);
  EXPECT_EQ(strip_scales, scales);
}

// Scales of any kind: what they were cannot be told from the largest magnitude alone. All codes but
// NaN, minus zero too.
TEST(Fp8Blocks, GiveBackTheCodesThatMadeTheValues) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> between(1, 2);
  for (int round = 0; round < 12; ++round) {
    // By f32, by powers of two with a largest code of 256 to 448, by bf16.
    const int kind = round % 3;
    const auto most = static_cast<uint8_t>(kind == 1 ? 0x78 + random() % 7 : 0x7e);
    std::vector<float> scales(4), again_scales, values(200 * 150), back(values.size());
    for (float& s : scales) {
      s = std::ldexp(kind == 1 ? 1.0f : between(random), -static_cast<int>(random() % 20));
      if (kind == 2) s = static_cast<float>(BFloat16(s));
    }
    std::vector<uint8_t> codes(values.size()), again;
    for (uint8_t& code : codes) {
      code = static_cast<uint8_t>(random() % (most + 1u) + (random() % 2) * 0x80);
    }
    for (const size_t corner : {0, 149, 199 * 150, 200 * 150 - 1}) codes[corner] = most;
    dequantise_blocks(cut_layout, codes, scales, 0, values.data());
    requantise_blocks(cut_layout, values, again, again_scales);
    EXPECT_EQ(again_scales, scales) << round;
    EXPECT_EQ(again, codes) << round;
    dequantise_blocks(cut_layout, again, again_scales, 0, back.data());
    EXPECT_EQ(back, values) << round;
  }
}

TEST(Fp8Blocks, AreTheNearestCodesWhereNoScaleGivesBack) {
  const std::vector<float> values = random_values(200 * 150);
  std::vector<uint8_t> codes, nearest;
  std::vector<float> scales, nearest_scales;
  requantise_blocks(cut_layout, values, codes, scales);
  quantise_blocks(cut_layout, values, nearest, nearest_scales);
  EXPECT_EQ(codes, nearest);
  EXPECT_EQ(scales, nearest_scales);
}

TEST(Fp8Blocks, OfZerosStayZeros) {
  const std::vector<float> values(200 * 150, 0.0f);
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  quantise_blocks(cut_layout, values, codes, scales);
  EXPECT_EQ(codes, std::vector<uint8_t>(values.size(), 0));
  EXPECT_EQ(scales, std::vector<float>(4, 1.0f));
}

// The largest magnitude / 448 of such a block is 0 in f32.
TEST(Fp8Blocks, OfNextToNothingStayNumbers) {
  for (const float tiny : {1e-45f, 1e-43f, 1e-40f, 3e-38f, 5e-36f}) {
    std::vector<float> values(200 * 150, 0.0f), back(values.size());
    values[7] = -tiny;
    std::vector<uint8_t> codes;
    std::vector<float> scales;
    quantise_blocks(cut_layout, values, codes, scales);
    EXPECT_GE(scales[0], std::numeric_limits<float>::min());
    dequantise_blocks(cut_layout, codes, scales, 0, back.data());
    for (size_t i = 0; i < back.size(); ++i) {
      EXPECT_NEAR(back[i], values[i], std::max(std::abs(values[i]) / 16, 2e-41f)) << tiny;
    }
  }
}

}  // namespace
}  // namespace shoestring
