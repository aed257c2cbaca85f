#include "launcher/schedule_times.h"

#include <string>

#include "core/check.h"
#include "parallel/schedules/catalogue.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

Schedule with_segments(const std::string& name, const std::string& kinds) {
  Schedule schedule = make_schedule({.name = name, .ranks = 4, .micros = 8});
  if (kinds.empty()) return schedule;
  schedule.segments.assign(static_cast<size_t>(schedule.where.stages()), parse_segments(kinds));
  return schedule;
}

TEST(ScheduleTimes, ReadsTimes) {
  const StepTimes times = parse_times("F=2,W=0.5,comm=1e-1,FB=3,I=0");
  EXPECT_EQ(times.f, 2);
  EXPECT_EQ(times.i, 0);
  EXPECT_EQ(times.w, 0.5);
  EXPECT_EQ(times.fb, 3);
  EXPECT_EQ(times.comm, 0.1);
  EXPECT_EQ(parse_times("F=2").w, 1);
  for (const char* wrong : {"F", "G=1", "F=", "F=x", "F=-1", "F=nan", "F=1;I=2", "F=1e300", "=1",
                            "F=0,I=0,W=0", "F=1,,I=2"}) {
    expect_error(ExitCode::usage, {"--times"}, [&] { parse_times(wrong); });
  }
}

TEST(ScheduleTimes, EachKeyOnce) {
  for (const char* text : {"F=1,F=2", "A2A=1,F=1,A2A=1", "experts=1,experts=2"}) {
    expect_error(ExitCode::usage, {"is given twice", "leave one out"}, [&] { parse_times(text); });
  }
}

TEST(ScheduleTimes, ReadsTimesOfSegments) {
  const auto of = [](const StepTimes& times, SegmentKind kind) {
    return times.segments[static_cast<size_t>(kind)];
  };
  const StepTimes times = parse_times("A2A=0.2,experts=1/2/3,mlp=4");
  EXPECT_EQ(of(times, SegmentKind::combine).i, 0.2);
  EXPECT_EQ(of(times, SegmentKind::combine).w, 0);
  EXPECT_EQ(of(times, SegmentKind::experts).w, 3);
  EXPECT_EQ(of(times, SegmentKind::mlp).f, 4);
  EXPECT_EQ(of(times, SegmentKind::mlp).i, 0);
  for (const char* wrong : {"experts=1/2/3/4", "experts=", "experts=1/x", "expert=1", "A2A=1/2"}) {
    expect_error(ExitCode::usage, {"--times"}, [&] { parse_times(wrong); });
  }
  // Otherwise a stage's share, evenly; here half a rank's over two that compute.
  const std::string text = "F=1,I=2,W=3,A2A=0.2";
  const StepTimes spread =
      times_of(text, with_segments("zb-v", "edge,attention,dispatch,experts,combine"));
  EXPECT_EQ(of(spread, SegmentKind::attention).f, 0.25);
  EXPECT_EQ(of(spread, SegmentKind::experts).w, 0.75);
  EXPECT_EQ(of(spread, SegmentKind::edge).f, 0);
  EXPECT_EQ(of(spread, SegmentKind::dispatch).f, 0.2);
  expect_error(ExitCode::usage, {"--segments"},
               [&] { times_of(text, with_segments("zb-v", "edge")); });
}

TEST(ScheduleTimes, OfSegmentsNeedThem) {
  const auto of = [](const char* text, const char* segments) {
    require_segments_of_times(text, *segments == 0 ? StageSegments() : parse_segments(segments));
  };
  of("F=1,comm=2,FB=3", "");
  of("A2A=1,experts=1/1/1", "attention,dispatch,experts");
  expect_error(ExitCode::usage, {"\"experts=2\" has no effect without --segments"},
               [&] { of("F=1,experts=2", ""); });
  expect_error(ExitCode::usage, {"\"mlp=2\" has no effect on these --segments", "must have mlp"},
               [&] { of("mlp=2", "attention,dispatch,experts"); });
  expect_error(ExitCode::usage, {"\"A2A=1\" has no effect on these", "dispatch or combine"},
               [&] { of("A2A=1", "attention,mlp"); });
}

TEST(ScheduleTimes, SaysWhichHaveNoEffect) {
  const std::string kinds = "attention,dispatch,experts,combine";
  const auto warning = [](const char* text, const Schedule& schedule) {
    return warning_of_times(text, schedule);
  };
  EXPECT_EQ(warning("F=1,I=1,W=1,FB=2", with_segments("dualpipe", "")), "");
  EXPECT_EQ(warning("F=1,A2A=1", with_segments("dualpipe", kinds)), "");
  EXPECT_EQ(warning("F=1,FB=2", with_segments("1f1b", "")),
            "--times: FB=2 has no effect: 1f1b has no interleaved pairs");
  EXPECT_EQ(warning("FB=2", with_segments("dualpipe", kinds)),
            "--times: FB=2 has no effect: with --segments a pair takes what its parts take");
  EXPECT_EQ(warning("F=1,W=2,experts=1", with_segments("dualpipe", kinds)),
            "--times: F=1, W=2 has no effect: the segments take their own times, and those without "
            "one take none");
}

}  // namespace
}  // namespace shoestring
