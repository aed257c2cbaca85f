#include "io/tokenizer/byte_pairs.h"

#include <gtest/gtest.h>

#include <random>

namespace shoestring {
namespace {

// The definition: find the lowest rank, leftmost, replace, start again.
std::vector<int32_t> merge_plainly(const PairTable& table, std::vector<int32_t> symbols) {
  while (true) {
    size_t best = symbols.size();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const PairMerge* merge = table.find(symbols[i], symbols[i + 1]);
      if (merge && (best == symbols.size() ||
                    merge->rank < table.find(symbols[best], symbols[best + 1])->rank)) {
        best = i;
      }
    }
    if (best == symbols.size()) {
      return symbols;
    }
    symbols[best] = table.find(symbols[best], symbols[best + 1])->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BytePairsTest, ShortAndLongEqualTheDefinition) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    PairTable table;
    const int letters = 2 + round % 4;
    int next = letters;
    for (int rank = 0; rank < 60; ++rank) {
      const auto left = static_cast<int32_t>(random() % static_cast<unsigned>(next));
      const auto right = static_cast<int32_t>(random() % static_cast<unsigned>(next));
      table.insert(left, right, {rank, next++});
    }
    for (int i = 0; i < 50; ++i) {
      std::vector<int32_t> symbols(random() % 97);
      for (int32_t& symbol : symbols) {
        symbol = static_cast<int32_t>(random() % static_cast<unsigned>(letters));
      }
      const std::vector<int32_t> expected = merge_plainly(table, symbols);
      auto by_short = symbols, by_long = symbols;
      by_short.resize(merge_short(table, by_short));
      by_long.resize(merge_long(table, by_long));
      ASSERT_EQ(by_short, expected);
      ASSERT_EQ(by_long, expected);
    }
  }
}

TEST(BytePairsTest, LaterEntriesReplaceEarlierOnes) {
  PairTable table;
  EXPECT_EQ(table.find(1, 2), nullptr);
  table.insert(1, 2, {0, 10});
  table.insert(1, 2, {5, 11});
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(table.find(1, 2)->id, 11);
  for (int i = 0; i < 5000; ++i) {
    table.insert(i, i + 7, {i, i});
  }
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(table.find(i, i + 7)->rank, i);
    ASSERT_EQ(table.find(i, i + 8), nullptr);
  }
}

TEST(BytePairsTest, LongPiecesTakeReasonableTime) {
  PairTable table;
  table.insert(0, 0, {0, 1});
  table.insert(1, 1, {1, 2});
  table.insert(2, 2, {2, 3});
  std::vector<int32_t> symbols(1'000'001, 0);
  symbols.resize(merge_pairs(table, symbols));
  EXPECT_EQ(symbols.size(), 125'001u);
  EXPECT_EQ(symbols.back(), 0);
}

}  // namespace
}  // namespace shoestring
