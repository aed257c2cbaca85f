#include "launcher/step_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "launcher/step.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// The report of the first step, as the last rank sees it.
StepReport first_step(const RunConfig& config, int ranks) {
  StepReport report;
  run_ranks(ranks, [&](Communicator& world) {
    RunTrace trace({}, world.rank());
    RankState rank(config, world, 1);
    const StepReport own = StepRunner(rank, trace).run(rank.loader->batch(0, world.rank(), ranks));
    if (world.rank() == ranks - 1) report = own;
  });
  return report;
}

std::map<std::string, double> as_map(const StepReport& report) {
  return {report.statistics.begin(), report.statistics.end()};
}

RunConfig telling_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.model.tied_embeddings = false;
  config.train.statistics_every = 1;
  return config;
}

TEST(StepStatistics, ClassesShareOutTheGradientNorm) {
  const ScratchFolder folder;
  const StepReport report = first_step(telling_config(folder), 1);
  const auto figures = as_map(report);
  double squares = 0;
  for (const char* name : {"embedding", "hidden", "head", "gain"}) {
    const double norm = figures.at(std::string("gradient_norm/") + name);
    EXPECT_GT(norm, 0) << name;
    squares += norm * norm;
  }
  EXPECT_FALSE(figures.contains("gradient_norm/bias"));  // the model has none
  EXPECT_NEAR(std::sqrt(squares), report.gradient_norm, 1e-9 * report.gradient_norm);
}

TEST(StepStatistics, BlocksTellHowLargeTheirOutputsAre) {
  const ScratchFolder folder;
  const auto figures = as_map(first_step(telling_config(folder), 1));
  for (int block : {0, 1}) {
    const double rms = figures.at(cat("activation_rms/layers.", block));
    const double largest = figures.at(cat("activation_absmax/layers.", block));
    EXPECT_GT(rms, 0.01);
    EXPECT_GT(largest, rms);
    EXPECT_LT(largest, 20 * rms);
  }
  EXPECT_EQ(figures.size(), 2u * 2 + 4);
}

// Three ranks and two micro-batches: one rank has nothing to tell but knows the figures.
TEST(StepStatistics, AnyNumberOfRanksTellsTheSame) {
  const ScratchFolder folder;
  for (int64_t stage : {0, 1}) {
    RunConfig config = telling_config(folder);
    config.parallel.zero_stage = stage;
    config.parallel.bucket_mb = 0.02;  // several pieces a rank
    const auto one = as_map(first_step(config, 1));
    for (int ranks : {2, 3}) {
      const auto many = as_map(first_step(config, ranks));
      ASSERT_EQ(many.size(), one.size());
      for (const auto& [name, value] : one) {
        EXPECT_NEAR(many.at(name), value, 1e-6 * value) << name << " on " << ranks << " ranks";
      }
    }
  }
}

TEST(StepStatistics, TheyAreInTheMetricsWhenDueAndChangeNothingElse) {
  const ScratchFolder folder;
  const RunResult without = train_small(small_config(folder, "without"));
  RunConfig config = small_config(folder, "with");
  config.train.statistics_every = 3;
  const RunResult with = train_small(config);
  expect_same_run(without, with);
  for (size_t i = 0; i < with.steps.size(); ++i) {
    const bool due = (i + 1) % 3 == 0;
    EXPECT_EQ(with.steps[i].contains("gradient_norm/hidden"), due) << i;
    EXPECT_EQ(with.steps[i].contains("activation_rms/layers.1"), due) << i;
    EXPECT_FALSE(without.steps[i].contains("gradient_norm/hidden"));
  }
}

}  // namespace
}  // namespace shoestring
