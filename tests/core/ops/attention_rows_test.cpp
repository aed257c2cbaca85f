#include "core/ops/attention_rows.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/core/ops/attention_case.h"

namespace shoestring::attention {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// One row of scores through softmax_block with reference 0: the weights are powers of two.
struct OneRow {
  std::vector<float> scores, pairs, output = std::vector<float>(16, 1.0f);
  std::vector<float> sums = std::vector<float>(sum_lanes, 0.0f);
  float maximum = 0;

  explicit OneRow(std::vector<float> s) : scores(std::move(s)), pairs(block_keys / 2) {}
  void run(int32_t low, int32_t high, bool as_pairs = false) {
    softmax_block({.visible = {.rows = 1, .low = &low, .high = &high},
                   .factor = 1,
                   .scores = scores.data(),
                   .pairs = as_pairs ? pairs.data() : nullptr,
                   .output = output.data(),
                   .output_columns = 16,
                   .maximum = &maximum,
                   .sums = sums.data()});
  }
  double sum() const {
    double total = 0;
    for (float x : sums) total += x;
    return total;
  }
  float weight_of_pair(int64_t column) const {
    const int64_t group = column / 32, within = column % 32;
    const auto bits = std::bit_cast<uint32_t>(pairs[group * 16 + within % 16]);
    BFloat16 half;
    half.bits = static_cast<uint16_t>(within < 16 ? bits : bits >> 16);
    return static_cast<float>(half);
  }
};

TEST(AttentionRows, PowersOfTwoAreExactTo2Ulp) {
  double worst = 0;
  for (int step = 0; step < 4000; ++step) {
    std::vector<float> x(block_keys);
    for (int64_t j = 0; j < block_keys; ++j) {
      x[j] = -125.0f + 133.0f * static_cast<float>(step * block_keys + j) / (4000.0f * block_keys);
    }
    OneRow row(x);
    row.run(0, block_keys);
    for (int64_t j = 0; j < block_keys; ++j) {
      const double want = std::exp2(static_cast<double>(x[j]));
      const double ulp = std::ldexp(1.0, std::ilogb(want) - 23);
      worst = std::max(worst, std::abs(row.scores[j] - want) / ulp);
    }
  }
  EXPECT_LE(worst, 2.0);
}

TEST(AttentionRows, FarBelowIsZeroAndNanStays) {
  std::vector<float> x(block_keys, 0.0f);
  x[1] = -127.5f, x[2] = -1e30f, x[3] = -infinity, x[4] = std::nanf("");
  OneRow row(x);
  row.run(0, block_keys);
  EXPECT_EQ(row.scores[0], 1.0f);
  for (int j : {1, 2, 3}) EXPECT_EQ(row.scores[j], 0.0f) << j;
  EXPECT_TRUE(std::isnan(row.scores[4]));
  EXPECT_TRUE(std::isnan(row.sum()));
}

// Columns outside are 0 whatever stands there, and count neither as maximum nor in the sum.
TEST(AttentionRows, HiddenColumnsDoNotCount) {
  for (const bool pairs : {false, true}) {
    for (int32_t low = 0; low <= block_keys; low += 7) {
      for (int32_t high = low; high <= block_keys; high += 5) {
        std::vector<float> x(block_keys, std::nanf(""));
        std::fill(x.begin() + low, x.begin() + high, 2.0f);
        OneRow row(x);
        row.run(low, high, pairs);
        for (int32_t j = 0; j < block_keys; ++j) {
          const float weight = pairs ? row.weight_of_pair(j) : row.scores[j];
          ASSERT_NEAR(weight, j >= low && j < high ? 4.0f : 0.0f, 1e-5) << j;
        }
        ASSERT_NEAR(row.sum(), 4.0 * (high - low), 1e-3);
        ASSERT_EQ(row.output[0], 1.0f);
      }
    }
  }
}

TEST(AttentionRows, AGrownMaximumScalesWhatWasSummed) {
  std::vector<float> x(block_keys, -1.0f);
  x[10] = 20.0f;
  OneRow row(x);
  row.sums[3] = 64.0f;
  row.run(0, block_keys);
  EXPECT_EQ(row.maximum, 20.0f);
  EXPECT_NEAR(row.output[5], std::exp2(-20.0), 1e-12);
  EXPECT_NEAR(row.sum(), 1 + 64 * std::exp2(-20.0) + 63 * std::exp2(-21.0), 1e-6);
}

TEST(AttentionRows, TheFirstBlockSetsTheMaximum) {
  std::vector<float> x(block_keys, -300.0f);
  x[63] = -290.0f;
  OneRow row(x);
  row.maximum = -infinity;
  row.output.assign(16, 0.0f);
  row.run(0, block_keys);
  EXPECT_EQ(row.maximum, -290.0f);
  EXPECT_EQ(row.scores[63], 1.0f);
  EXPECT_EQ(row.output[0], 0.0f);
}

// Words and pairs give the same gradients up to the rounding to bf16, at the places they promise.
TEST(AttentionRows, GradientsInWordsAndPairsAgree) {
  const int64_t rows = 5;
  std::vector<float> scores = random_values<float>("s", rows * block_keys);
  std::vector<float> d_weights = random_values<float>("d", rows * block_keys);
  const std::vector<float> log_sum = {1, 2, 3, 4, 5}, delta = {0.5f, -0.5f, 0, 1, 2};
  const std::vector<int32_t> low = {0, 0, 3, 3, 40}, high = {20, 40, 50, 64, 64};
  std::vector<float> p(3 * block_keys), ds(3 * block_keys), ds_keys(rows * block_keys / 2);
  GradientBlock block = {.visible = {.rows = rows, .low = low.data(), .high = high.data()},
                         .factor = 0.7f,
                         .log_sum = log_sum.data(),
                         .delta = delta.data(),
                         .scores = scores.data(),
                         .d_weights = d_weights.data(),
                         .p_row_pairs = p.data(),
                         .ds_row_pairs = ds.data(),
                         .ds_key_pairs = ds_keys.data()};
  const std::vector<float> s = scores, d = d_weights;
  gradient_block(block);
  block.p_row_pairs = block.ds_row_pairs = block.ds_key_pairs = nullptr;
  gradient_block(block);
  const auto half = [](float word, bool second) {
    BFloat16 x;
    x.bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(word) >> (second ? 16 : 0));
    return static_cast<double>(static_cast<float>(x));
  };
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t j = 0; j < block_keys; ++j) {
      const int64_t at = r * block_keys + j, pair = r / 2 * block_keys + j;
      const bool seen = r < rows && j >= low[r] && j < high[r];
      const double weight = seen ? std::exp2(double{0.7f} * s[at] - log_sum[r]) : 0;
      const double gradient = seen ? weight * (double{d[at]} - delta[r]) : 0;
      const double t = 0x1.01p-8;
      ASSERT_NEAR(half(p[pair], r % 2 == 1), weight, t * weight) << r << ", " << j;
      ASSERT_NEAR(half(ds[pair], r % 2 == 1), gradient, t * std::abs(gradient)) << r << ", " << j;
      if (r == rows) continue;
      const int64_t word = r * block_keys / 2 + j / 32 * 16 + j % 16;
      ASSERT_NEAR(half(ds_keys[word], j % 32 >= 16), gradient, t * std::abs(gradient));
      ASSERT_NEAR(scores[at], weight, 1e-6 * weight);
      ASSERT_NEAR(d_weights[at], gradient, 1e-6 * weight * 4);
    }
  }
}

TEST(AttentionRows, PairsOfKeysCoverEveryColumnOnce) {
  std::vector<int> seen(block_keys);
  for (int64_t w = 0; w < block_keys / 2; ++w) ++seen[first_of_pair(w)], ++seen[second_of_pair(w)];
  EXPECT_EQ(seen, std::vector<int>(block_keys, 1));
}

}  // namespace
}  // namespace shoestring::attention
