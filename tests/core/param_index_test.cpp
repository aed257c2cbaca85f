#include "core/param_index.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

// Every element's place, one by one and by runs of any length.
void expect_places(const ParamInfo& info, const std::vector<int64_t>& want) {
  const auto n = static_cast<int64_t>(want.size());
  ASSERT_EQ(info.shape.elements(), n);
  for (int64_t begin = 0; begin < n; ++begin) {
    for (int64_t end = begin + 1; end <= n; ++end) {
      for (int64_t at = begin; at < end;) {
        const WholeRun run = whole_run(info, at, end);
        ASSERT_GT(run.elements, 0);
        ASSERT_LE(at + run.elements, end);
        for (int64_t i = 0; i < run.elements; ++i, ++at) {
          ASSERT_EQ(run.whole + i, want[static_cast<size_t>(at)]) << at;
        }
      }
    }
  }
}

TEST(ParamIndex, OfWholeParameters) {
  expect_places({.name = "w", .shape = {2, 3}}, {0, 1, 2, 3, 4, 5});
}

TEST(ParamIndex, OfRunsOfRows) {
  ParamInfo info{.name = "w", .shape = {3, 2}};
  info.shard = {
      .whole = {8, 2},
      .rows = {{.local = 0, .global = 2, .count = 1}, {.local = 1, .global = 5, .count = 2}}};
  expect_places(info, {4, 5, 10, 11, 12, 13});
  EXPECT_EQ(whole_run(info, 2, 6).elements, 4) << "rows that follow one another are one run";
}

TEST(ParamIndex, OfColumns) {
  ParamInfo info{.name = "w", .shape = {2, 2}};
  info.shard = {
      .whole = {2, 6}, .rows = {{.local = 0, .global = 0, .count = 2}}, .first_column = 4};
  expect_places(info, {4, 5, 10, 11});
}

TEST(ParamIndex, OfVectors) {
  ParamInfo info{.name = "b", .shape = {3}};
  info.shard = {
      .whole = {9},
      .rows = {{.local = 0, .global = 3, .count = 2}, {.local = 2, .global = 7, .count = 1}}};
  expect_places(info, {3, 4, 7});
}

TEST(ParamIndex, RowsThatNobodyNamed) {
  ParamInfo info{.name = "w", .shape = {3, 2}};
  info.shard = {.whole = {8, 2}, .rows = {{.local = 0, .global = 2, .count = 1}}};
  EXPECT_THROW(whole_run(info, 2, 6), Error);
}

}  // namespace
}  // namespace shoestring
