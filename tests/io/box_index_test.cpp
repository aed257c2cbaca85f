#include "io/box_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

namespace shoestring {
namespace {

TensorBox box(std::vector<RowRun> rows, int64_t first_column, int64_t columns) {
  return {.rows = std::move(rows), .first_column = first_column, .columns = columns};
}

BoxRange all_of(TensorBox b) {
  const int64_t elements = b.elements();
  return {.box = std::move(b), .begin = 0, .end = elements};
}

// How often each element of the tensor is in the parts.
std::vector<int> counts_of(const Shape& shape, const std::vector<BoxRange>& parts) {
  std::vector<int> counts(static_cast<size_t>(shape.elements()));
  for (const BoxRange& part : parts) {
    for (const BoxRectangle& r : rectangles_of(shape, part)) {
      for (int64_t i = 0; i < r.rows; ++i) {
        for (int64_t j = 0; j < r.columns; ++j) {
          ++counts[static_cast<size_t>((r.row + i) * columns_of(shape) + r.column + j)];
        }
      }
    }
  }
  return counts;
}

// Cuts rows [first, last) and columns into boxes, some further into ranges.
void cut_at_random(const Shape& shape, std::mt19937_64& random, std::vector<BoxRange>& parts) {
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  // Every row belongs to one of three owners, each owner's columns to one of two.
  std::vector<TensorBox> owners(3);
  for (int64_t row = 0; row < rows_of(shape); ++row) {
    TensorBox& own = owners[random() % 3];
    const int64_t local = own.rows.empty() ? 0 : own.rows.back().local + own.rows.back().count;
    own.rows.push_back({.local = local, .global = row, .count = 1});
  }
  for (TensorBox own : owners) {
    const int64_t split = below(columns_of(shape) + 1);
    for (const auto& [first, count] :
         {std::pair(int64_t{0}, split), std::pair(split, columns_of(shape) - split)}) {
      own.first_column = first, own.columns = count;
      const int64_t middle = below(own.elements() + 1);
      parts.push_back({.box = own, .begin = 0, .end = middle});
      parts.push_back({.box = own, .begin = middle, .end = own.elements()});
    }
  }
  std::shuffle(parts.begin(), parts.end(), random);
}

TEST(BoxIndex, FindsNothingInExactCuts) {
  std::mt19937_64 random(8);
  for (int round = 0; round < 500; ++round) {
    for (const Shape& shape : {Shape{7, 5}, Shape{2, 3, 4}, Shape{10}, Shape{1, 6}}) {
      std::vector<BoxRange> parts;
      cut_at_random(shape, random, parts);
      ASSERT_FALSE(BoxIndex(shape, parts).flaw());
    }
  }
  EXPECT_FALSE(BoxIndex({}, {{.box = {}, .begin = 0, .end = 1}}).flaw());
  EXPECT_FALSE(BoxIndex({0, 5}, {}).flaw());
  EXPECT_FALSE(BoxIndex({5, 0}, {}).flaw());
}

TEST(BoxIndex, FindsEveryHoleAndOverlap) {
  std::mt19937_64 random(9);
  int holes = 0, overlaps = 0;
  for (int round = 0; round < 2000; ++round) {
    const Shape shape{6, 5};
    std::vector<BoxRange> parts;
    cut_at_random(shape, random, parts);
    BoxRange& part = parts[random() % parts.size()];
    if (random() % 2 == 0 && part.elements() > 0) --part.end;
    if (random() % 2 == 0 && part.begin > 0) --part.begin;
    const std::vector<int> counts = counts_of(shape, parts);
    const auto flaw = BoxIndex(shape, parts).flaw();
    ASSERT_EQ(flaw.has_value(),
              std::any_of(counts.begin(), counts.end(), [](int n) { return n != 1; }));
    if (!flaw) continue;
    (flaw->twice() ? overlaps : holes) += 1;
    ASSERT_LT(flaw->begin, flaw->end);
    for (int64_t e = flaw->begin; e < flaw->end; ++e) {
      ASSERT_EQ(counts[static_cast<size_t>(e)], flaw->twice() ? 2 : 0);
    }
  }
  EXPECT_GT(holes, 100);
  EXPECT_GT(overlaps, 100);
}

TEST(BoxIndex, NamesThePiecesThatOverlap) {
  const std::vector<BoxRange> parts = {all_of(box({{0, 0, 4}}, 0, 3)),
                                       all_of(box({{0, 0, 4}}, 3, 3)),
                                       all_of(box({{0, 2, 1}}, 2, 2))};
  const auto flaw = BoxIndex({4, 6}, parts).flaw();
  ASSERT_TRUE(flaw);
  EXPECT_EQ(flaw->begin, 2 * 6 + 2);
  EXPECT_EQ(flaw->end, 2 * 6 + 3);
  EXPECT_EQ(flaw->first, 0);
  EXPECT_EQ(flaw->second, 2);
}

// Every cut is put together from every other cut; each element is copied once.
TEST(BoxIndex, JoinsAnyCutFromAnyOther) {
  std::mt19937_64 random(10);
  for (int round = 0; round < 300; ++round) {
    for (const Shape& shape : {Shape{7, 5}, Shape{2, 3, 4}, Shape{12}}) {
      std::vector<BoxRange> stored, wanted;
      cut_at_random(shape, random, stored);
      cut_at_random(shape, random, wanted);
      const BoxIndex index(shape, stored);
      // What each stored piece has: the numbers of its elements in the tensor.
      std::vector<std::vector<int64_t>> values;
      const auto fill = [&](const BoxRange& part) {
        std::vector<int64_t> numbers(static_cast<size_t>(part.elements()));
        for (const BoxRectangle& r : rectangles_of(shape, part)) {
          for (int64_t k = 0; k < r.rows * r.columns; ++k) {
            const int64_t i = k / r.columns, j = k % r.columns;
            numbers.at(static_cast<size_t>(r.at + i * r.stride + j)) =
                (r.row + i) * columns_of(shape) + r.column + j;
          }
        }
        return numbers;
      };
      for (const BoxRange& part : stored) values.push_back(fill(part));
      for (const BoxRange& part : wanted) {
        std::vector<int64_t> got(static_cast<size_t>(part.elements()), -1);
        int64_t copied = 0;
        index.for_each_copy(part, [&](const BoxIndex::Copy& c) {
          for (int64_t k = 0; k < c.rows * c.columns; ++k, ++copied) {
            const int64_t i = k / c.columns, j = k % c.columns;
            got.at(static_cast<size_t>(c.to + i * c.to_stride + j)) =
                values[c.piece].at(static_cast<size_t>(c.from + i * c.from_stride + j));
          }
        });
        ASSERT_EQ(got, fill(part));
        ASSERT_EQ(copied, part.elements());
      }
    }
  }
}

// 256 experts cut into gate and up of four ranks each: a quarter of a million runs are checked in
// less than a second, and one rank's share is put together without looking at all of them.
TEST(BoxIndex, TakesManyRunsInItsStride) {
  constexpr int64_t runs = 1 << 16, ranks = 4, count = 2;
  std::vector<BoxRange> parts;
  for (int64_t r = 0; r < ranks; ++r) {
    TensorBox own{.rows = {}, .first_column = 0, .columns = 8};
    for (int64_t i = 0; i < runs; ++i) {
      own.rows.push_back({.local = i * count, .global = (i * ranks + r) * count, .count = count});
    }
    parts.push_back(all_of(std::move(own)));
  }
  const Shape shape{runs * ranks * count, 8};
  const auto start = std::chrono::steady_clock::now();
  const BoxIndex index(shape, parts);
  EXPECT_FALSE(index.flaw());
  int64_t elements = 0;
  index.for_each_copy(parts[2], [&](const BoxIndex::Copy& c) { elements += c.rows * c.columns; });
  EXPECT_EQ(elements, parts[2].elements());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_LT(taken.count(), 20);  // of any build; quadratic work would take minutes
}

}  // namespace
}  // namespace shoestring
