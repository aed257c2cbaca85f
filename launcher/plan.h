#pragma once
// What a config means over the length of a run: which step has which size, rate and positions.

#include <cstdint>
#include <string>
#include <vector>

#include "core/ops/rope.h"
#include "io/batch_schedule.h"
#include "launcher/run_config.h"
#include "optim/schedule.h"

namespace shoestring {

// The pieces of constant batch and sequence length: stages by tokens, cut further by the batch-size
// ramp. A usage error when a ramp's batch is not a multiple of the micro-batch.
std::vector<LoadSegment> load_segments(const RunConfig& config);

// The keys that say what `keys` of [train] say, in the segment from `from_tokens` on: for
// "train.batch" the ramp's or a stage's batch, where one holds there. Other keys stay.
std::vector<std::string> keys_from(const RunConfig& config, int64_t from_tokens,
                                   std::vector<std::string> keys);

// What the stage that holds at `tokens` changes besides the rows.
struct StageEffect {
  double lr_multiplier = 1;
  double mtp_weight = 0, bias_speed = 0;
  RopeConfig rope;
};
StageEffect stage_effect(const RunConfig& config, int64_t tokens);

// The longest sequence of any stage; the rotary table must cover it.
int64_t longest_sequence(const RunConfig& config);

SchedulePlan schedule_plan(const RunConfig& config, const BatchSchedule& schedule);

}  // namespace shoestring
