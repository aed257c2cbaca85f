#include "io/batch_schedule.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

LoadSegment shape(int64_t from, int64_t length, int64_t sequences, int64_t micro_batches) {
  return {.from_tokens = from,
          .length = length,
          .sequences = sequences,
          .micro_batches = micro_batches,
          .weights = {}};
}

TEST(BatchSchedule, StepsFollowOneAnotherWithoutGaps) {
  // A ramp, then longer rows, then a stage that begins within the step before it.
  const BatchSchedule schedule({shape(0, 8, 2, 1), shape(50, 8, 2, 3), shape(300, 32, 1, 2),
                                shape(310, 32, 1, 4), shape(1000, 32, 1, 1)});
  int64_t sample = 0, token = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const StepShape at = schedule.at(step);
    ASSERT_EQ(at.first_sample, sample);
    ASSERT_EQ(at.first_token, token);
    const LoadSegment& segment = schedule.segments()[static_cast<size_t>(at.segment)];
    EXPECT_GE(token, segment.from_tokens);
    if (at.segment + 1 < 5) {
      EXPECT_LT(token, schedule.segments()[static_cast<size_t>(at.segment) + 1].from_tokens);
    }
    EXPECT_EQ(at.length, segment.length);
    EXPECT_EQ(schedule.steps_for_tokens(token), step);
    EXPECT_EQ(schedule.steps_for_tokens(token + 1), step + 1);
    sample += at.samples();
    token += at.tokens();
  }
  EXPECT_EQ(schedule.first_sample(1), 8);
}

TEST(BatchSchedule, SkipsAStageThatAStepJumpsOver) {
  const BatchSchedule schedule({shape(0, 100, 1, 1), shape(110, 1, 1, 1), shape(150, 2, 1, 1)});
  EXPECT_EQ(schedule.at(1).segment, 0);
  EXPECT_EQ(schedule.at(2).segment, 2);
  EXPECT_EQ(schedule.at(2).first_token, 200);
}

TEST(BatchSchedule, RefusesImpossibleBatches) {
  expect_error(ExitCode::usage, {"start at token 0"}, [] { BatchSchedule({}); });
  expect_error(ExitCode::usage, {"start at token 0"}, [] { BatchSchedule({shape(5, 1, 1, 1)}); });
  expect_error(ExitCode::usage, {"stage 0", "0 micro-batches of 2 sequences of 8"},
               [] { BatchSchedule({shape(0, 8, 2, 0)}); });
  expect_error(ExitCode::usage, {"stage 1", "starts at token 0"}, [] {
    BatchSchedule({shape(0, 8, 2, 1), shape(0, 8, 2, 1)});
  });
  expect_error(ExitCode::fault, {"no step -1"}, [] { BatchSchedule({shape(0, 8, 2, 1)}).at(-1); });
}

TEST(BatchSchedule, RefusesWhatCannotBeCounted) {
  const int64_t huge = int64_t{1} << 40;
  expect_error(ExitCode::usage, {"stage 0", "no possible batch"},
               [&] { BatchSchedule({shape(0, huge, huge, huge)}); });
  expect_error(ExitCode::usage, {"stage 0", "no possible batch"},
               [&] { BatchSchedule({shape(0, huge, 2, 1)}); });
  expect_error(ExitCode::usage, {"stage 1 begins after", "can be counted"}, [] {
    BatchSchedule({shape(0, 8, 2, 1), shape(std::numeric_limits<int64_t>::max(), 8, 2, 1)});
  });
  const BatchSchedule schedule({shape(0, 1 << 20, 1 << 10, 1)});
  EXPECT_EQ(schedule.at((int64_t{1} << 33) - 2).first_token, ((int64_t{1} << 33) - 2) << 30);
  expect_error(ExitCode::usage, {"step 1000000000000", "more than 2^63 tokens", "train.steps"},
               [&] { schedule.at(1000000000000); });
  const BatchSchedule late({shape(0, 8, 2, 1), shape(int64_t{1} << 62, huge, 1, 1)});
  expect_error(ExitCode::usage, {"more than 2^63 tokens"},
               [&] { late.at((int64_t{1} << 58) + (int64_t{1} << 23)); });
}

}  // namespace
}  // namespace shoestring
