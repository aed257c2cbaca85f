#include "launcher/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// One rank and what its steps said.
struct Steps {
  std::vector<StepReport> reports;
  std::vector<float> before_last, after_last;  // masters
  int64_t step = 0, updates = 0;
};

Steps run_steps(const RunConfig& config, int64_t count) {
  Steps steps;
  run_ranks(1, [&](Communicator& world) {
    RunTrace trace({}, 0);
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    for (int64_t i = 0; i < count; ++i) {
      const std::span<float> master = rank.store->master();
      steps.before_last.assign(master.begin(), master.end());
      steps.reports.push_back(runner.run(rank.loader->batch(i, 0, 1)));
      steps.after_last.assign(master.begin(), master.end());
    }
    steps.step = rank.step;
    steps.updates = rank.updates;
  });
  return steps;
}

TEST(Step, BeginsAtTheLossOfAUniformGuessAndLearns) {
  const ScratchFolder folder;
  const Steps steps = run_steps(small_config(folder), 20);
  EXPECT_NEAR(steps.reports.front().loss, std::log(256.0), 0.05);  // 200 ids in 256 rows
  EXPECT_LT(steps.reports.back().loss, steps.reports.front().loss - 0.1);
  EXPECT_EQ(steps.step, 20);
  EXPECT_EQ(steps.updates, 20);
  EXPECT_GT(steps.reports[0].compute_seconds, 0);
}

TEST(Step, MicroBatchesAddUpToTheWholeBatch) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.micro_batch = 4;
  const StepReport whole = run_steps(config, 1).reports[0];
  for (int64_t micro_batch : {1, 2}) {
    config.train.micro_batch = micro_batch;
    const StepReport parts = run_steps(config, 1).reports[0];
    EXPECT_NEAR(parts.loss, whole.loss, 1e-6 * whole.loss);
    EXPECT_NEAR(parts.gradient_norm, whole.gradient_norm, 1e-5 * whole.gradient_norm);
    EXPECT_EQ(parts.accuracy, whole.accuracy);
  }
}

TEST(Step, ClipsTheUpdateAndReportsTheNormBefore) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.weight_decay = 0;
  config.optim.epsilon = 1;  // the update is then nearly proportional to the gradient
  auto length_of_update = [](const Steps& s) {
    double sum = 0;
    for (size_t i = 0; i < s.after_last.size(); ++i) {
      const double d = static_cast<double>(s.after_last[i]) - static_cast<double>(s.before_last[i]);
      sum += d * d;
    }
    return std::sqrt(sum);
  };
  config.optim.clip = 0;
  const Steps free = run_steps(config, 1);
  config.optim.clip = free.reports[0].gradient_norm / 4;
  const Steps clipped = run_steps(config, 1);
  EXPECT_EQ(free.reports[0].gradient_norm, clipped.reports[0].gradient_norm);
  EXPECT_NEAR(length_of_update(clipped), length_of_update(free) / 4, 0.05 * length_of_update(free));
}

TEST(Step, ASkippedStepChangesNoWeight) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.skip.window = 2;
  config.optim.skip.norm_z = 1e-9;  // whatever is above the mean of two stands out
  bool skipped = false;
  for (int64_t count = 3; count < 10 && !skipped; ++count) {
    const Steps steps = run_steps(config, count);
    skipped = steps.reports.back().skipped;
    if (!skipped) continue;
    EXPECT_EQ(steps.before_last, steps.after_last);
    EXPECT_LT(steps.updates, steps.step);
    EXPECT_NE(steps.reports.back().skip_reason, "");
  }
  EXPECT_TRUE(skipped);
}

TEST(Step, TheZLossIsReportedApart) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const StepReport plain = run_steps(config, 1).reports[0];
  config.train.z_loss = 1e-2;
  const StepReport with = run_steps(config, 1).reports[0];
  EXPECT_EQ(plain.penalty, 0);
  EXPECT_EQ(plain.loss, with.loss);
  EXPECT_NEAR(with.penalty, 1e-2 * std::pow(std::log(256.0), 2), 0.02);
  EXPECT_NE(plain.gradient_norm, with.gradient_norm);
}

}  // namespace
}  // namespace shoestring
