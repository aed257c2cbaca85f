#include "parallel/balanced_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "core/check.h"

namespace shoestring {
namespace {

using Split = std::vector<int64_t>;

TEST(BalancedSplit, EqualBlocksAreSplitEvenly) {
  EXPECT_EQ(balanced_split({.blocks = std::vector<double>(8, 1)}, 4), (Split{2, 2, 2, 2}));
  EXPECT_EQ(balanced_split({.blocks = std::vector<double>(8, 1)}, 1), (Split{8}));
}

TEST(BalancedSplit, EndsHaveFewerBlocks) {
  const PieceCosts costs{.embedding = 0.1, .head = 2, .blocks = std::vector<double>(10, 1)};
  EXPECT_EQ(balanced_split(costs, 4), (Split{3, 3, 3, 1}));
  EXPECT_EQ(stage_costs(costs, {3, 3, 3, 1}), (std::vector<double>{3.1, 3, 3, 3}));
}

TEST(BalancedSplit, AHeadMayStandAlone) {
  const PieceCosts costs{.embedding = 5, .head = 5, .blocks = {1, 1, 1, 1}};
  EXPECT_EQ(balanced_split(costs, 3), (Split{0, 4, 0}));
  EXPECT_EQ(balanced_split({.blocks = {1}}, 3), (Split{0, 1, 0}));
  EXPECT_THROW(balanced_split({.blocks = {1}}, 4), Error);
}

// Against all splits of small models.
TEST(BalancedSplit, IsTheBestOfAll) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> cost(0, 3);
  for (int round = 0; round < 50; ++round) {
    PieceCosts costs{.embedding = cost(random), .head = cost(random)};
    const auto blocks = static_cast<int64_t>(2 + random() % 7);
    for (int64_t i = 0; i < blocks; ++i) costs.blocks.push_back(cost(random));
    const int stages = static_cast<int>(1 + random() % std::min<uint64_t>(5, blocks));
    double best = 1e9;
    Split split(static_cast<size_t>(stages));
    const std::function<void(size_t, int64_t)> fill = [&](size_t s, int64_t left) {
      const bool last = s + 1 == split.size();
      for (int64_t n = last ? left : 0; n <= left; ++n) {
        if (n == 0 && s > 0 && !last) continue;
        split[s] = n;
        if (!last) {
          fill(s + 1, left - n);
        } else {
          const std::vector<double> all = stage_costs(costs, split);
          best = std::min(best, *std::max_element(all.begin(), all.end()));
        }
      }
    };
    fill(0, blocks);
    const std::vector<double> found = stage_costs(costs, balanced_split(costs, stages));
    EXPECT_NEAR(*std::max_element(found.begin(), found.end()), best, 1e-12);
  }
}

}  // namespace
}  // namespace shoestring
