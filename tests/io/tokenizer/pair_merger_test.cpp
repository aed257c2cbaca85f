#include "io/tokenizer/pair_merger.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(PairMergerTest, MostFrequentFirstThenSmallestIds) {
  // Words: 1 2 (5 times), 1 3 (5 times), 2 3 (7 times).
  PairMerger merger({{1, 2}, {1, 3}, {2, 3}}, {5, 5, 7});
  EXPECT_EQ(merger.best(0), (IdPair{2, 3}));
  merger.merge({2, 3}, 4);
  EXPECT_EQ(merger.best(0), (IdPair{1, 2}));
  merger.merge({1, 2}, 5);
  EXPECT_EQ(merger.best(6), std::nullopt);
}

TEST(PairMergerTest, CountsFollowTheMerges) {
  // abcab twice: ab 4, bc 2, ca 2; after ab -> X: Xc 2, cX 2.
  PairMerger merger({{1, 2, 3, 1, 2}}, {2});
  EXPECT_EQ(merger.best(0), (IdPair{1, 2}));
  merger.merge({1, 2}, 10);
  EXPECT_EQ(merger.best(2), (IdPair{3, 10}));
  merger.merge({3, 10}, 11);
  EXPECT_EQ(merger.best(2), (IdPair{10, 11}));
  merger.merge({10, 11}, 12);
  EXPECT_EQ(merger.best(1), std::nullopt);
}

TEST(PairMergerTest, WordsWithoutPairs) {
  PairMerger merger({{1}, {}}, {3, 4});
  EXPECT_EQ(merger.best(0), std::nullopt);
}

}  // namespace
}  // namespace shoestring
