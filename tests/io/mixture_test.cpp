#include "io/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(Mixture, DrawsAgreeWithCountsAndShares) {
  const std::vector<std::vector<double>> mixtures = {
      {1}, {1, 1}, {0.7, 0.2, 0.1}, {5, 0, 3, 0}, {1e-6, 1, 1e-3}, {1, 2, 3, 4, 5, 6, 7, 8}};
  for (const auto& weights : mixtures) {
    const Mixture mixture(weights);
    std::vector<int64_t> seen(weights.size(), 0);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (int64_t n = 0; n < 5000; ++n) {
      ASSERT_EQ(mixture.counts(n), seen);
      const Mixture::Draw draw = mixture.draw(n);
      ASSERT_EQ(draw.index, seen[static_cast<size_t>(draw.source)]++);
      for (size_t s = 0; s < weights.size(); ++s) {
        const double ideal = static_cast<double>(n + 1) * weights[s] / sum;
        ASSERT_LT(std::abs(static_cast<double>(seen[s]) - ideal), 4.0) << n << " " << s;
      }
    }
    for (size_t s = 0; s < weights.size(); ++s) {
      EXPECT_NEAR(mixture.share(static_cast<int64_t>(s)), weights[s] / sum, 1e-8);
    }
  }
}

TEST(Mixture, SourcesWithoutWeightGiveNothing) {
  const Mixture mixture({0, 1, 0});
  for (int64_t n = 0; n < 100; ++n) EXPECT_EQ(mixture.draw(n).source, 1);
}

TEST(Mixture, WorksFarOut) {
  const Mixture mixture({0.3, 0.7});
  const int64_t n = int64_t{1} << 50;
  const auto counts = mixture.counts(n);
  EXPECT_EQ(counts[0] + counts[1], n);
  EXPECT_NEAR(static_cast<double>(counts[0]) / static_cast<double>(n), 0.3, 1e-9);
}

TEST(Mixture, RefusesImpossibleWeights) {
  expect_error(ExitCode::usage, {"weight -1", "source 1"}, [] { Mixture({1, -1}); });
  expect_error(ExitCode::usage, {"no source has a weight"}, [] { Mixture({0, 0}); });
  expect_error(ExitCode::usage, {"weight"}, [] {
    Mixture({1, std::numeric_limits<double>::quiet_NaN()});
  });
}

}  // namespace
}  // namespace shoestring
