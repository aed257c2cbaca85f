#include "optim/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/optim/support.h"

namespace shoestring {
namespace {

std::vector<float> numbers(size_t n) {
  const RandomStream stream(9, "norm");
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(stream.normal(i) * std::pow(10, static_cast<int>(i % 7) - 3));
  }
  return x;
}

double combined(const std::vector<float>& x, const std::vector<int64_t>& borders, int threads) {
  Device device(DeviceKind::cpu, 0, threads);
  std::vector<FlatRange> ranges;
  std::vector<double> terms;
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    const FlatRange range{borders[i], borders[i + 1]};
    // Each rank may hold only its own shard.
    const std::vector<float> shard(x.begin() + range.begin, x.begin() + range.end);
    const std::vector<double> own = square_sums(device, {shard, range.begin}, range);
    EXPECT_EQ(static_cast<int64_t>(own.size()), norm_terms(range));
    ranges.push_back(range);
    terms.insert(terms.end(), own.begin(), own.end());
  }
  return sum_of_squares(ranges, terms);
}

TEST(Norm, EveryCutGivesTheSameBits) {
  const int64_t n = 10 * norm_block + 5 * norm_unit;
  const std::vector<float> x = numbers(static_cast<size_t>(n));
  const double want = combined(x, {0, n}, 1);
  long double plain = 0;
  for (float v : x) plain += static_cast<long double>(v) * v;
  EXPECT_NEAR(want, static_cast<double>(plain), 1e-13 * static_cast<double>(plain));
  for (const std::vector<int64_t>& borders :
       std::vector<std::vector<int64_t>>{{0, norm_block, n},
                                         {0, 64, n},
                                         {0, 64, 128, 4032, 4096, 4160, n},
                                         {0, 2 * norm_block + 640, 2 * norm_block + 640, n},
                                         {0, n - 64, n}}) {
    EXPECT_EQ(combined(x, borders, 1), want);
    EXPECT_EQ(combined(x, borders, 3), want);
  }
}

// The order of summation, written down once more: the same bits on every instruction set.
TEST(Norm, SumsInTheDocumentedOrder) {
  const int64_t n = 2 * norm_block + 3 * norm_unit;
  const std::vector<float> x = numbers(static_cast<size_t>(n));
  double total = 0, block = 0;
  for (int64_t unit = 0; unit < n; unit += norm_unit) {
    double s[8] = {};
    for (int64_t i = 0; i < norm_unit; ++i) {
      const double v = x[static_cast<size_t>(unit + i)];
      s[i % 8] += v * v;
    }
    block += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    if ((unit + norm_unit) % norm_block == 0) {
      total += block;
      block = 0;
    }
  }
  EXPECT_EQ(combined(x, {0, n}, 2), total + block);
}

TEST(Norm, BordersInsideAUnitAreRefused) {
  EXPECT_THROW(norm_terms({0, 100}), Error);
  EXPECT_THROW(norm_terms({64, 0}), Error);
}

TEST(Norm, OfOneRank) {
  std::vector<float> x(192);
  auto norm = [&] { return std::sqrt(combined(x, {0, 192}, 1)); };
  x[0] = 3;
  x[191] = -4;
  EXPECT_EQ(norm(), 5);
  x[5] = 3e30f;  // its square overflows f32, not f64
  EXPECT_NEAR(norm() / 3e30, 1, 1e-7);
}

TEST(Norm, NonFiniteGradientsAreFoundAndNamed) {
  const std::vector<Param> params = small_model();
  Flat flat(params, 1);
  const FlatRange all{0, flat_elements(params)};
  EXPECT_FALSE(first_non_finite(params, {flat.gradients, 0}, all));
  const size_t at = static_cast<size_t>(params[3].offset + 17);
  for (float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    flat.gradients[at] = bad;
    EXPECT_FALSE(std::isfinite(combined(flat.gradients, {0, all.end}, 1)));
    const auto found = first_non_finite(params, {flat.gradients, 0}, all);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->name, "up");
    EXPECT_EQ(found->element, 17);
  }
}

// What lies between ranges counts as zeros, in the blocks where it lies.
TEST(Norm, GapsAreZeros) {
  const int64_t n = 3 * norm_block;
  std::vector<float> all(static_cast<size_t>(n), 0.25f);
  const FlatRange first{0, 5 * norm_unit}, second{norm_block + norm_unit, 2 * norm_block};
  for (int64_t i = first.end; i < n; ++i) {
    if (i < second.begin || i >= second.end) all[static_cast<size_t>(i)] = 0;
  }
  Device device(DeviceKind::cpu, 0, 1);
  const FlatSpan<const float> values{all, 0};
  const FlatRange whole{0, n};
  std::vector<double> terms = square_sums(device, values, first);
  const std::vector<double> more = square_sums(device, values, second);
  terms.insert(terms.end(), more.begin(), more.end());
  EXPECT_EQ(sum_of_squares(std::vector<FlatRange>{first, second}, terms),
            sum_of_squares({&whole, 1}, square_sums(device, values, whole)));
  EXPECT_THROW(sum_of_squares(std::vector<FlatRange>{second, first}, terms), Error);
}

TEST(Norm, ClipRule) {
  EXPECT_EQ(clip_coefficient(5, 0), 1);
  EXPECT_EQ(clip_coefficient(0.5, 1), 1);
  EXPECT_DOUBLE_EQ(clip_coefficient(4, 1), 1 / (4 + 1e-6));
  EXPECT_LT(clip_coefficient(1, 1), 1);  // 1 / 1.000001
  EXPECT_EQ(clip_coefficient(0, 1), 1);
}

}  // namespace
}  // namespace shoestring
