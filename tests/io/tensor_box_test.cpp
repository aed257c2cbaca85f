#include "io/tensor_box.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

namespace shoestring {
namespace {

constexpr int64_t huge = std::numeric_limits<int64_t>::max();

// The numbers in the tensor of a part's elements, one by one and in order: the definition.
std::vector<int64_t> numbers_of(const Shape& shape, const BoxRange& part) {
  std::vector<int64_t> all;
  if (!part.box) {
    all.resize(static_cast<size_t>(shape.elements()));
    std::iota(all.begin(), all.end(), 0);
  } else {
    for (const RowRun& run : part.box->rows) {
      for (int64_t row = run.global; row < run.global + run.count; ++row) {
        for (int64_t c = 0; c < part.box->columns; ++c) {
          all.push_back(row * columns_of(shape) + part.box->first_column + c);
        }
      }
    }
  }
  return {all.begin() + part.begin, all.begin() + part.end};
}

BoxRange random_part(const Shape& shape, std::mt19937_64& random) {
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  TensorBox box;
  const int64_t rows = rows_of(shape), columns = columns_of(shape);
  int64_t local = 0;
  for (int64_t row = below(3); row < rows; row += below(3)) {
    const int64_t count = below(std::min<int64_t>(rows - row, 4) + 1);
    box.rows.push_back({.local = local, .global = row, .count = count});
    local += count, row += count;
  }
  if (below(3) > 0) box.first_column = below(columns);
  box.columns = below(3) == 0 ? columns - box.first_column : below(columns - box.first_column + 1);
  BoxRange part{.box = box, .begin = below(box.elements() + 1), .end = 0};
  if (below(2) == 0) part.begin = 0;
  part.end = below(2) == 0 ? box.elements() : part.begin + below(box.elements() - part.begin + 1);
  return part;
}

TEST(TensorBox, RectanglesAreTheElementsInOrder) {
  std::mt19937_64 random(4);
  for (const Shape& shape : {Shape{7, 5}, Shape{2, 4, 3}, Shape{11}, Shape{9, 1}, Shape{1, 9}}) {
    for (int round = 0; round < 2000; ++round) {
      const BoxRange part = random_part(shape, random);
      ASSERT_EQ(complaint_of(shape, part), "") << text_of(part);
      const std::vector<int64_t> wanted = numbers_of(shape, part);
      std::vector<int64_t> got(wanted.size(), -1);
      size_t elements = 0;
      for (const BoxRectangle& r : rectangles_of(shape, part)) {
        ASSERT_GT(r.rows * r.columns, 0);
        for (int64_t i = 0; i < r.rows; ++i) {
          for (int64_t j = 0; j < r.columns; ++j, ++elements) {
            got.at(static_cast<size_t>(r.at + i * r.stride + j)) =
                (r.row + i) * columns_of(shape) + r.column + j;
          }
        }
      }
      ASSERT_EQ(got, wanted) << shape.text() << ": " << text_of(part);
      ASSERT_EQ(elements, wanted.size());
      const BoxRange brief = simplified(shape, part);
      ASSERT_EQ(complaint_of(shape, brief), "");
      if (part.elements() == 0) continue;
      ASSERT_EQ(numbers_of(shape, brief), wanted) << shape.text() << ": " << text_of(part);
      ASSERT_EQ(simplified(shape, brief), brief);
    }
  }
}

TEST(TensorBox, IsToldInTheShortestWay) {
  const Shape shape{8, 4};
  // Neighbouring runs of whole rows are elements of the tensor.
  const TensorBox rows{.rows = {{0, 2, 1}, {1, 3, 2}}, .first_column = 0, .columns = 4};
  EXPECT_EQ(simplified(shape, {.box = rows, .begin = 1, .end = 12}),
            (BoxRange{.box = {}, .begin = 9, .end = 20}));
  // Rows that are not touched go.
  const TensorBox two{.rows = {{0, 1, 2}, {2, 5, 2}}, .first_column = 1, .columns = 2};
  const TensorBox kept{.rows = {{0, 5, 2}}, .first_column = 1, .columns = 2};
  EXPECT_EQ(simplified(shape, {.box = two, .begin = 5, .end = 8}),
            (BoxRange{.box = kept, .begin = 1, .end = 4}));
  EXPECT_EQ(simplified(shape, {.box = two, .begin = 3, .end = 6}).box->rows.size(), 2u);
  EXPECT_EQ(simplified({6}, {.box = TensorBox{{{0, 4, 2}}, 0, 1}, .begin = 0, .end = 2}),
            (BoxRange{.box = {}, .begin = 4, .end = 6}));
}

TEST(TensorBox, NamesWhatIsNoPart) {
  const auto refused = [](const BoxRange& part, const std::string& why) {
    const std::string complaint = complaint_of({4, 6}, part);
    EXPECT_NE(complaint.find(why), std::string::npos) << complaint;
  };
  refused({.box = {}, .begin = 3, .end = 25}, "elements 3 to 25 are not among its 24");
  refused({.box = {}, .begin = 5, .end = 4}, "elements 5 to 4");
  refused({.box = {}, .begin = -1, .end = 4}, "elements -1 to 4");
  TensorBox box{.rows = {{0, 0, 1}, {1, 2, 2}}, .first_column = 2, .columns = 3};
  EXPECT_EQ(complaint_of({4, 6}, {.box = box, .begin = 0, .end = 9}), "");
  refused({.box = box, .begin = 0, .end = 10}, "not among its part's 9");
  const auto with = [&](auto change, const std::string& why) {
    TensorBox bad = box;
    change(bad);
    refused({.box = bad, .begin = 0, .end = 0}, why);
  };
  with([](TensorBox& b) { b.columns = 5; }, "5 columns from 2 on are not among its 6");
  with([](TensorBox& b) { b.first_column = 7; }, "columns from 7");
  with([](TensorBox& b) { b.first_column = huge, b.columns = huge; }, "columns");
  with([](TensorBox& b) { b.columns = -1; }, "-1 columns");
  with([](TensorBox& b) { b.rows[1].count = 3; }, "3 rows from 2 on are not among its 4");
  with([](TensorBox& b) { b.rows[1].global = huge, b.rows[1].count = huge; }, "rows from");
  with([](TensorBox& b) { b.rows[1].count = -2; }, "-2 rows");
  with([](TensorBox& b) { b.rows[1].global = 0; }, "the rows from 0 on do not ascend");
  with([](TensorBox& b) { b.rows[1].local = 2; }, "leave a gap");
}

TEST(TensorBox, IsWhatARankHolds) {
  ParamInfo info{.name = "w", .shape = {4, 6}};
  EXPECT_FALSE(box_of(info));
  EXPECT_EQ(whole_shape(info), (Shape{4, 6}));
  info.shard = {.whole = {8, 12}, .rows = {{0, 1, 2}, {2, 5, 2}}, .first_column = 6};
  EXPECT_EQ(whole_shape(info), (Shape{8, 12}));
  ASSERT_TRUE(box_of(info));
  EXPECT_EQ(text_of({.box = box_of(info), .begin = 0, .end = 24}),
            "elements 0 to 24 of rows 1-2 5-6, columns 6-11");
  ParamInfo vector{.name = "b", .shape = {3}};
  vector.shard = {.whole = {9}, .rows = {{0, 3, 3}}};
  EXPECT_EQ(box_of(vector)->columns, 1);
  EXPECT_EQ(text_of({.box = {}, .begin = 2, .end = 3}), "elements 2 to 3");
}

}  // namespace
}  // namespace shoestring
