#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"

namespace shoestring {
namespace {

double factor_at(ScheduleConfig config, double x) {
  config.drive = "tokens";
  return schedule_factor(config, 0, static_cast<int64_t>(std::llround(x * 1e6)),
                         {.total = 1000000, .warmup = 0, .unit = 1});
}

TEST(Schedule, Cosine) {
  const ScheduleConfig config{.kind = "cosine", .min_ratio = 0.1};
  const double want[] = {1, 0.8682, 0.55, 0.2318, 0.1};
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(factor_at(config, i * 0.25), want[i], 5e-5);
  EXPECT_EQ(factor_at(config, 2), 0.1);  // holds beyond the end
}

TEST(Schedule, LinearAndConstant) {
  EXPECT_DOUBLE_EQ(factor_at({.kind = "linear", .min_ratio = 0.1}, 0.5), 0.55);
  EXPECT_DOUBLE_EQ(factor_at({.kind = "linear", .min_ratio = 0.1}, 1), 0.1);
  EXPECT_EQ(factor_at({.kind = "constant"}, 0.9), 1);
}

TEST(Schedule, WarmupStableDecay) {
  ScheduleConfig config{.kind = "wsd", .min_ratio = 0, .decay_fraction = 0.2};
  const double want[] = {1, 0.5, 0.2929, 0.1340, 0};
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(factor_at(config, 0.8 + i * 0.05), want[i], 5e-5);
  EXPECT_EQ(factor_at(config, 0.5), 1);
  config.decay_shape = "linear";
  config.min_ratio = 0.5;
  EXPECT_NEAR(factor_at(config, 0.9), 0.75, 1e-12);
}

TEST(Schedule, MultiStepOfDeepSeekV2) {
  const ScheduleConfig lite{.kind = "multi_step"};
  EXPECT_EQ(factor_at(lite, 0.799999), 1);
  EXPECT_NEAR(factor_at(lite, 0.8), 0.316, 1e-12);
  EXPECT_NEAR(factor_at(lite, 0.9), 0.316 * 0.316, 1e-12);
  const ScheduleConfig v2{.kind = "multi_step", .milestones = {0.6, 0.9}};
  EXPECT_NEAR(factor_at(v2, 0.6), 0.316, 1e-12);
}

TEST(Schedule, DeepSeekV3) {
  OptimConfig config{.lr = 2.2e-4};
  config.schedule.kind = "deepseek_v3";
  config.schedule.warmup_steps = 2000;
  const int64_t batch = 15360 * 4096ll;
  const int64_t total = 14'800'000'000'000;
  const SchedulePlan plan{.total = total, .warmup = 2000 * batch, .unit = batch};
  auto lr = [&](double trillions) {
    const int64_t tokens = static_cast<int64_t>(trillions * 1e12);
    return learning_rate(config, tokens / batch, tokens, plan);
  };
  EXPECT_NEAR(lr(5), 2.2e-4, 1e-15);
  EXPECT_NEAR(lr(9.99), 2.2e-4, 1e-15);
  EXPECT_NEAR(lr(12.15), 1.21e-4, 1e-9);
  EXPECT_NEAR(lr(14.29), 2.20026e-5, 1e-10);
  EXPECT_NEAR(lr(14.5), 2.2e-5, 1e-12);
  EXPECT_NEAR(lr(14.7), 7.3e-6, 1e-12);
  EXPECT_NEAR(learning_rate(config, 0, 0, plan), 2.2e-4 / 2000, 1e-12);
  EXPECT_NEAR(learning_rate(config, 1999, 1999 * batch, plan), 2.2e-4, 1e-12);
}

TEST(Schedule, WarmupByStepsAndByTokensAgree) {
  ScheduleConfig by_steps{.kind = "cosine", .drive = "steps", .warmup_steps = 10};
  ScheduleConfig by_tokens{.kind = "cosine", .drive = "tokens", .warmup_tokens = 1000};
  ScheduleConfig mixed{.kind = "cosine", .drive = "tokens", .warmup_steps = 10};
  const SchedulePlan steps{.total = 50, .warmup = 10, .unit = 1};
  const SchedulePlan tokens{.total = 5000, .warmup = 1000, .unit = 100};
  for (int64_t s = 0; s < 60; ++s) {
    const double want = schedule_factor(by_steps, s, 100 * s, steps);
    for (const ScheduleConfig& config : {by_tokens, mixed}) {
      EXPECT_NEAR(schedule_factor(config, s, 100 * s, tokens), want, 1e-12);
    }
    if (s < 10) {
      EXPECT_NEAR(want, (static_cast<double>(s) + 1) / 10, 1e-12);
    }
  }
}

}  // namespace
}  // namespace shoestring
