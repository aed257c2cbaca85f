#include "optim/ramp.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Ramp, WithoutPiecesTheBatchIsConstant) {
  const BatchRamp ramp({}, 8, 16);
  EXPECT_EQ(ramp.at_step(0).tokens, 0);
  EXPECT_EQ(ramp.at_step(5).tokens, 5 * 128);
  EXPECT_EQ(ramp.at_step(5).samples, 40);
  EXPECT_EQ(ramp.at_step(5).sequences, 8);
  EXPECT_EQ(ramp.steps_for(129), 2);
}

// Against a loop that adds one step after another.
TEST(Ramp, PiecesEqualCountingStepByStep) {
  const RampConfig config{.tokens = {100, 250, 255, 900}, .sequences = {3, 5, 6, 7}};
  const BatchRamp ramp(config, 11, 4);
  int64_t tokens = 0, samples = 0;
  for (int64_t step = 0; step < 80; ++step) {
    int64_t batch = 11;
    for (size_t i = 4; i-- > 0;) {
      if (tokens < config.tokens[i]) batch = config.sequences[i];
    }
    const BatchPosition at = ramp.at_step(step);
    ASSERT_EQ(at.tokens, tokens) << step;
    ASSERT_EQ(at.samples, samples) << step;
    ASSERT_EQ(at.sequences, batch) << step;
    ASSERT_EQ(ramp.steps_for(tokens), step);
    ASSERT_EQ(ramp.steps_for(tokens + 1), step + 1);
    tokens += batch * 4;
    samples += batch;
  }
}

TEST(Ramp, AnEmptyBatchIsAUsageError) {
  EXPECT_THROW(BatchRamp({}, 0, 4), Error);
  EXPECT_THROW(BatchRamp({.tokens = {10}, .sequences = {0}}, 4, 4), Error);
}

}  // namespace
}  // namespace shoestring
