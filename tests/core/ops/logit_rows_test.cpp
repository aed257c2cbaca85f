#include "core/ops/logit_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/random.h"

namespace shoestring {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

std::vector<float> some_logits(int64_t n, uint64_t seed) {
  const RandomStream random(seed, "logits");
  std::vector<float> z;
  for (int64_t i = 0; i < n; ++i) {
    z.push_back(static_cast<float>(3 * random.normal(static_cast<uint64_t>(i))));
  }
  return z;
}

double log_sum_exp(const std::vector<float>& z) {
  const double most = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const float x : z) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum);
}

TEST(LogitRows, SumsOverOneAndSeveralBlocks) {
  for (const int64_t n : {1, 7, 64, 1000, 1024, 1025, 5000}) {
    std::vector<float> z = some_logits(n, 3);
    const double want = log_sum_exp(z);
    const float most = *std::max_element(z.begin(), z.end());
    float largest = 0;
    const std::vector<float> before = z;
    EXPECT_NEAR(log_sum_exp_of_row(z.data(), n, nullptr, &largest), want, 1e-5) << n;
    EXPECT_EQ(largest, most);
    EXPECT_EQ(z, before) << "without maxima the logits stay";
    std::vector<float> maxima(static_cast<size_t>((n + logit_block - 1) / logit_block));
    EXPECT_NEAR(log_sum_exp_of_row(z.data(), n, maxima.data(), &largest), want, 1e-5);
    EXPECT_EQ(maxima.back(), most);
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(i);
      const float shift = maxima[at / logit_block];
      EXPECT_NEAR(z[at], std::exp(before[at] - shift), 1e-6) << i;
    }
  }
}

TEST(LogitRows, BlocksOfMinusInfinity) {
  std::vector<float> z(2 * logit_block, -inf);
  z[logit_block + 3] = 2;
  float largest = 0;
  EXPECT_NEAR(log_sum_exp_of_row(z.data(), 2 * logit_block, nullptr, &largest), 2, 1e-6);
  EXPECT_EQ(largest, 2);
}

TEST(LogitRows, TheFirstOfTheLargest) {
  for (const int64_t n : {1, 5, 16, 33, 700}) {
    std::vector<float> z = some_logits(n, 5);
    const auto most = std::max_element(z.begin(), z.end());
    EXPECT_EQ(first_largest_of_row(z.data(), n), most - z.begin()) << n;
    if (n < 5) continue;
    z[static_cast<size_t>(n - 1)] = z[2] = *most + 1;
    EXPECT_EQ(first_largest_of_row(z.data(), n), 2) << n;
    z[0] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(first_largest_of_row(z.data(), n), 2) << n;
  }
}

TEST(LogitRows, ScalesInPlace) {
  std::vector<float> e = some_logits(77, 8);
  std::vector<float> wide(e), narrow(e);
  scale_row(wide.data(), 77, 0.5f, wide.data());
  scale_row(narrow.data(), 77, 0.5f, reinterpret_cast<BFloat16*>(narrow.data()));
  for (size_t i = 0; i < e.size(); ++i) {
    EXPECT_EQ(wide[i], 0.5f * e[i]);
    EXPECT_EQ(static_cast<float>(reinterpret_cast<BFloat16*>(narrow.data())[i]),
              static_cast<float>(BFloat16(0.5f * e[i])));
  }
}

}  // namespace
}  // namespace shoestring
