#pragma once
// Learning-rate schedules as pure functions of where the run stands. Progress is counted in tokens
// (right under a batch-size ramp) or in steps, as `schedule.drive` says.

#include <cstdint>

#include "optim/config.h"

namespace shoestring {

// The lengths a schedule is laid over; the unit (tokens or steps) is that of `schedule.drive`.
struct SchedulePlan {
  int64_t total = 0;   // end of the schedule
  int64_t warmup = 0;  // end of the warm-up
  int64_t unit = 1;    // what the first step adds: its tokens, or 1 step
};

// Learning rate of the 0-based `step`, before which `tokens` were consumed.
// Warm-up: lr * (s+1)/W over warmup_steps, also when tokens drive the rest; over warmup_tokens the
// same line, lr * (tokens + first step's tokens)/W. Beyond the plan the last value holds.
// Sources: Loshchilov & Hutter 2017 (cosine); Hu et al. 2024, arXiv 2404.06395 (WSD); Haegele et
// al. 2024, arXiv 2405.18392 (1 - sqrt); DeepSeek-V2 section 3.1.2 (steps), DeepSeek-V3
// section 4.2.
double learning_rate(const OptimConfig& config, int64_t step, int64_t tokens,
                     const SchedulePlan& plan);

// The same over the highest learning rate.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t tokens,
                       const SchedulePlan& plan);

}  // namespace shoestring
