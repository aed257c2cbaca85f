#include "launcher/plan.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/check.h"

namespace shoestring {
namespace {

RunConfig base() {
  RunConfig c;
  c.train.batch = 8;
  c.train.micro_batch = 2;
  c.train.sequence_length = 128;
  c.train.steps = 100;
  return c;
}

TEST(Plan, OneSegmentWithoutStages) {
  const auto segments = load_segments(base());
  ASSERT_EQ(segments.size(), 1u);
  EXPECT_EQ(segments[0].micro_batches, 4);
  EXPECT_EQ(segments[0].length, 128);
}

TEST(Plan, StagesAndTheRampCutTheRun) {
  RunConfig c = base();
  c.optim.ramp.tokens = {5000};
  c.optim.ramp.sequences = {4};
  StageSection first, second;
  second.from_tokens = 20000;
  second.sequence_length = 256;
  second.batch = 4;
  second.weights = {1, 3};
  second.lr_multiplier = 0.5;
  second.rope_scaling = "linear";
  second.rope_factor = 2;
  second.mtp_weight = 0.1;
  second.bias_speed = 0;
  c.model.mtp.weight = 0.3;
  c.model.moe.balance.bias_speed = 0.001;
  c.stages = {first, second};
  const auto segments = load_segments(c);
  ASSERT_EQ(segments.size(), 3u);
  EXPECT_EQ(segments[0].micro_batches, 2);  // the ramp
  EXPECT_EQ(segments[1].from_tokens, 5000);
  EXPECT_EQ(segments[1].micro_batches, 4);
  EXPECT_EQ(segments[2].length, 256);
  EXPECT_EQ(segments[2].micro_batches, 2);
  EXPECT_EQ(segments[2].weights, (std::vector<double>{1, 3}));
  EXPECT_EQ(longest_sequence(c), 256);
  EXPECT_EQ(stage_effect(c, 19999).lr_multiplier, 1);
  EXPECT_EQ(stage_effect(c, 19999).rope.scaling, "none");
  EXPECT_EQ(stage_effect(c, 20000).lr_multiplier, 0.5);
  EXPECT_EQ(stage_effect(c, 20000).rope.factor, 2);
  EXPECT_EQ(stage_effect(c, 19999).mtp_weight, 0.3);
  EXPECT_EQ(stage_effect(c, 20000).mtp_weight, 0.1);
  EXPECT_EQ(stage_effect(c, 19999).bias_speed, 0.001);
  EXPECT_EQ(stage_effect(c, 20000).bias_speed, 0);
}

// Who says how large a segment is: the run, its stage or its ramp.
TEST(Plan, KeysOfASegmentAreThoseThatHoldThere) {
  RunConfig c = base();
  c.optim.ramp.tokens = {5000};
  c.optim.ramp.sequences = {4};
  StageSection first, second;
  first.micro_batch = 2;
  second.from_tokens = 20000;
  second.sequence_length = 256;
  second.batch = 4;
  c.stages = {first, second};
  using Keys = std::vector<std::string>;
  const Keys asked = {"train.batch", "train.micro_batch", "train.sequence_length", "model.heads"};
  EXPECT_EQ(keys_from(c, 0, asked), (Keys{"optim.ramp.sequences", "stages.0.micro_batch",
                                          "train.sequence_length", "model.heads"}));
  EXPECT_EQ(keys_from(c, 5000, asked),
            (Keys{"train.batch", "stages.0.micro_batch", "train.sequence_length", "model.heads"}));
  EXPECT_EQ(keys_from(c, 20000, asked), (Keys{"stages.1.batch", "stages.0.micro_batch",
                                              "stages.1.sequence_length", "model.heads"}));
}

TEST(Plan, ARampThatDoesNotFitTheMicroBatchIsAUsageError) {
  RunConfig c = base();
  c.optim.ramp.tokens = {5000};
  c.optim.ramp.sequences = {3};
  EXPECT_THROW(load_segments(c), Error);
}

TEST(Plan, SchedulesRunOverTheTokensOfTheRun) {
  RunConfig c = base();
  c.optim.schedule.warmup_steps = 10;
  const BatchSchedule schedule(load_segments(c));
  const SchedulePlan plan = schedule_plan(c, schedule);
  EXPECT_EQ(plan.total, 100 * 8 * 128);
  EXPECT_EQ(plan.warmup, 10 * 8 * 128);
  EXPECT_EQ(plan.unit, 8 * 128);
  c.optim.schedule.drive = "steps";
  EXPECT_EQ(schedule_plan(c, schedule).total, 100);
}

std::string complaint_of(const RunConfig& c) {
  try {
    schedule_plan(c, BatchSchedule(load_segments(c)));
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Plan, AWarmupThatIsTooLongIsToldInTheUnitOfItsKey) {
  RunConfig c = base();
  c.optim.schedule.warmup_steps = 101;
  for (const char* drive : {"tokens", "steps"}) {
    c.optim.schedule.drive = drive;
    EXPECT_EQ(complaint_of(c),
              "the warm-up, optim.schedule.warmup_steps = 101 steps, is longer than the whole "
              "schedule of 100 "
              "steps (train.steps = 100, which optim.schedule.total = 0 follows); lower "
              "optim.schedule.warmup_steps or raise train.steps");
  }
  c.optim.schedule.drive = "tokens";
  c.optim.schedule.total = 5 * 8 * 128;
  EXPECT_EQ(complaint_of(c),
            "the warm-up, optim.schedule.warmup_steps = 101 steps, is longer than the whole "
            "schedule of 5 steps "
            "(optim.schedule.total = 5120 tokens); lower optim.schedule.warmup_steps or raise "
            "optim.schedule.total");
  c.optim.schedule.warmup_steps = 0;
  c.optim.schedule.warmup_tokens = 6144;
  EXPECT_EQ(complaint_of(c),
            "the warm-up, optim.schedule.warmup_tokens = 6144 tokens, is longer than the whole "
            "schedule of 5120 "
            "tokens (optim.schedule.total = 5120 tokens); lower optim.schedule.warmup_tokens or "
            "raise optim.schedule.total");
}

}  // namespace
}  // namespace shoestring
