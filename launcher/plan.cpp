#include "launcher/plan.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"

namespace shoestring {
namespace {

// The ramp's batch at a token count, or 0 when the ramp is over.
int64_t ramp_sequences(const RampConfig& ramp, int64_t tokens) {
  for (size_t i = 0; i < ramp.tokens.size(); ++i) {
    if (tokens < ramp.tokens[i]) return ramp.sequences[i];
  }
  return 0;
}

// In the unit of the key that says how long the warm-up is.
[[noreturn]] void refuse_warmup(const RunConfig& config, const BatchSchedule& schedule,
                                const SchedulePlan& plan) {
  const ScheduleConfig& s = config.optim.schedule;
  const bool in_tokens = s.warmup_tokens > 0, by_tokens = s.drive == "tokens";
  int64_t whole = plan.total;
  if (in_tokens && !by_tokens) whole = schedule.at(plan.total).first_token;
  if (!in_tokens && by_tokens) whole = schedule.steps_for_tokens(plan.total);
  const char* key = in_tokens ? "optim.schedule.warmup_tokens" : "optim.schedule.warmup_steps";
  const char* unit = in_tokens ? "token" : "step";
  const int64_t warmup = in_tokens ? s.warmup_tokens : s.warmup_steps;
  const std::string total = s.total > 0 ? cat("optim.schedule.total = ", s.total, " ", s.drive)
                                        : cat("train.steps = ", config.train.steps,
                                              ", which optim.schedule.total = 0 follows");
  fail_usage(cat("the warm-up, ", key, " = ", counted(warmup, unit),
                 ", is longer than the whole schedule of ", counted(whole, unit), " (", total,
                 "); lower ", key, " or raise ",
                 s.total > 0 ? "optim.schedule.total" : "train.steps"));
}

}  // namespace

std::vector<LoadSegment> load_segments(const RunConfig& config) {
  std::set<int64_t> borders = {0};
  for (const StageSection& stage : config.stages) borders.insert(stage.from_tokens);
  for (int64_t tokens : config.optim.ramp.tokens) borders.insert(tokens);
  std::vector<LoadSegment> segments;
  for (int64_t from : borders) {
    int64_t length = config.train.sequence_length, batch = config.train.batch;
    int64_t micro = config.train.micro_batch;
    std::vector<double> weights;
    for (const StageSection& stage : config.stages) {
      if (stage.from_tokens > from) continue;
      length = stage.sequence_length.value_or(length);
      batch = stage.batch.value_or(batch);
      micro = stage.micro_batch.value_or(micro);
      if (!stage.weights.empty()) weights = stage.weights;
    }
    if (int64_t ramp = ramp_sequences(config.optim.ramp, from); ramp > 0) batch = ramp;
    if (batch % micro != 0) {
      fail_usage(cat("from ", from, " tokens on, the batch of ", counted(batch, "sequence"),
                     " is not a multiple of the micro-batch of ", micro,
                     "; change optim.ramp.sequences or train.micro_batch"));
    }
    segments.push_back({.from_tokens = from,
                        .length = length,
                        .sequences = micro,
                        .micro_batches = batch / micro,
                        .weights = weights});
  }
  return segments;
}

std::vector<std::string> keys_from(const RunConfig& config, int64_t from_tokens,
                                   std::vector<std::string> keys) {
  for (std::string& key : keys) {
    const std::string asked = key;
    for (size_t i = 0; i < config.stages.size(); ++i) {
      const StageSection& stage = config.stages[i];
      const bool says = (asked == "train.batch" && stage.batch) ||
                        (asked == "train.micro_batch" && stage.micro_batch) ||
                        (asked == "train.sequence_length" && stage.sequence_length);
      if (!says || stage.from_tokens > from_tokens) continue;
      key = cat("stages.", i, asked.substr(asked.find('.')));
    }
    const bool ramped = ramp_sequences(config.optim.ramp, from_tokens) > 0;
    if (asked == "train.batch" && ramped) key = "optim.ramp.sequences";
  }
  return keys;
}

StageEffect stage_effect(const RunConfig& config, int64_t tokens) {
  StageEffect effect{.mtp_weight = config.model.mtp.weight,
                     .bias_speed = config.model.moe.balance.bias_speed,
                     .rope = config.model.rope};
  for (const StageSection& stage : config.stages) {
    if (stage.from_tokens > tokens) continue;
    effect.lr_multiplier = stage.lr_multiplier.value_or(effect.lr_multiplier);
    effect.mtp_weight = stage.mtp_weight.value_or(effect.mtp_weight);
    effect.bias_speed = stage.bias_speed.value_or(effect.bias_speed);
    effect.rope.scaling = stage.rope_scaling.value_or(effect.rope.scaling);
    effect.rope.theta = stage.rope_theta.value_or(effect.rope.theta);
    effect.rope.factor = stage.rope_factor.value_or(effect.rope.factor);
  }
  return effect;
}

int64_t longest_sequence(const RunConfig& config) {
  int64_t longest = config.train.sequence_length;
  for (const StageSection& stage : config.stages) {
    longest = std::max(longest, stage.sequence_length.value_or(0));
  }
  return longest;
}

SchedulePlan schedule_plan(const RunConfig& config, const BatchSchedule& schedule) {
  const ScheduleConfig& s = config.optim.schedule;
  const bool by_tokens = s.drive == "tokens";
  const int64_t run = by_tokens ? schedule.at(config.train.steps).first_token : config.train.steps;
  SchedulePlan plan{.total = s.total > 0 ? s.total : run,
                    .warmup = 0,
                    .unit = by_tokens ? schedule.at(0).tokens() : 1};
  if (by_tokens) {
    plan.warmup = s.warmup_tokens > 0 ? s.warmup_tokens : schedule.at(s.warmup_steps).first_token;
  } else {
    plan.warmup = s.warmup_tokens > 0 ? schedule.steps_for_tokens(s.warmup_tokens) : s.warmup_steps;
  }
  if (plan.warmup > plan.total) refuse_warmup(config, schedule, plan);
  return plan;
}

}  // namespace shoestring
