#include "parallel/schedule_checks.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

std::string first(const char* text, const char* segments, int micros = 2) {
  Schedule s{.name = "by hand", .where = {}, .ranks = parse_programs(text, "text")};
  s.where = {.ranks = static_cast<int>(s.ranks.size()), .micros = micros};
  if (*segments != '\0') s.segments.assign(s.ranks.size(), parse_segments(segments));
  const std::vector<std::string> all = standing_complaints_of(s);
  return all.empty() ? "" : all[0];
}

TEST(ScheduleChecks, WholePasses) {
  EXPECT_EQ(first("0F0 0B0\n", "", 1), "");
  EXPECT_EQ(first("0F0 5B0\n", ""), "rank 0, 5B0 (number 2): there are stages 0 to 0");
  EXPECT_EQ(first("0F9 0B0\n", ""), "rank 0, 0F9 (number 1): there are micro-batches 0 to 1");
  EXPECT_EQ(first("1F0\n0F0\n", ""),
            "rank 0, 1F0 (number 1): stage 1 of this micro-batch is on rank 1");
}

TEST(ScheduleChecks, PartsFitTheirSegments) {
  const char* three = "attention,dispatch,experts";
  EXPECT_EQ(first("0F0.0 0F0.1~ 0F0.2 0I0.2 0W0.2 0I0.1~ 0I0.0 0W0.0\n", three, 1), "");
  EXPECT_EQ(first("0F0.0\n", ""),
            "rank 0, 0F0.0 (number 1): it is of a part, but the segments of the stages are not "
            "told (--segments)");
  EXPECT_EQ(first("0F0.3\n", three), "rank 0, 0F0.3 (number 1): there are parts 0 to 2");
  EXPECT_EQ(first("0B0.0\n", three), "rank 0, 0B0.0 (number 1): only F, I and W have parts");
  EXPECT_EQ(first("0F0.0&0I1.0\n", three),
            "rank 0, 0F0.0 (number 1): a part cannot be one of a pair");
  EXPECT_EQ(
      first("0F0.1\n", three),
      "rank 0, 0F0.1 (number 1): the segment is of kind dispatch, it travels (~) and has no W");
  EXPECT_EQ(first("0W0.1~\n", three),
            "rank 0, 0W0.1~ (number 1): the segment is of kind dispatch, it travels (~) and has no "
            "W");
  EXPECT_EQ(first("0F0.0~\n", three),
            "rank 0, 0F0.0~ (number 1): the segment is of kind attention, it does not travel (~)");
  // One pass of a direction at a time, and whole passes alone.
  const char* two = "attention,mlp";
  EXPECT_EQ(first("0F0.0 0F1.0 0F0.1 0F1.1\n", two),
            "rank 0, 0F1.0 (number 2): the pass of 0F0.0 is not at its end");
  EXPECT_EQ(first("0F0 0F1 0I0.1 0W0.1 0I1.1 0W1.1 0I0.0 0W0.0 0I1.0 0W1.0\n", two),
            "rank 0, 0I1.1 (number 5): the pass of 0W0.1 is not at its end");
  EXPECT_EQ(first("0F0 0F1.0 0B0 0F1.1 0B1\n", two),
            "rank 0, 0B0 (number 3): the pass of 0F1.0 is not at its end");
  EXPECT_EQ(first("0F0 0F1.0 0I0.1 0W0.1 0F1.1 0I0.0 0W0.0 0B1\n", two), "");
  EXPECT_EQ(first("0F0\n", "dispatch"), "stage 0 must begin with a segment that computes");
}

}  // namespace
}  // namespace shoestring
