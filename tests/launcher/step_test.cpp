#include "launcher/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/text.h"
#include "launcher/step_flop.h"
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

double figure(const StepReport& report, const std::string& name) {
  for (const auto& [key, value] : report.statistics) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no figure " << name;
  return 0;
}

// They begin at a uniform guess times the share of labels that do not reach over a border, learn,
// and their losses are those of the whole batch however it is cut.
TEST(Step, PredictionModulesLearnAndAreReported) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.mtp = {.depth = 2, .weight = 0.5};
  const Steps steps = run_steps(config, 40);
  const StepReport &first = steps.reports.front(), &last = steps.reports.back();
  for (const char* loss : {"mtp/loss_1", "mtp/loss_2"}) {
    EXPECT_GT(figure(first, loss), 0.8 * std::log(256.0)) << loss;
    EXPECT_LT(figure(first, loss), std::log(256.0) + 0.05) << loss;
    EXPECT_LT(figure(last, loss), 0.95 * figure(first, loss)) << loss;
  }
  EXPECT_LT(figure(first, "mtp/loss_2"), figure(first, "mtp/loss_1"));  // fewer labels
  for (const char* rate : {"mtp/agreement_1", "mtp/agreement_2"}) {
    EXPECT_GE(figure(first, rate), 0) << rate;
    EXPECT_LE(figure(last, rate), 1) << rate;
  }
  EXPECT_GT(figure(last, "mtp/agreement_1"), 0.05);
  config.train.micro_batch = 1;
  const StepReport parts = run_steps(config, 1).reports[0];
  EXPECT_NEAR(figure(parts, "mtp/loss_1"), figure(first, "mtp/loss_1"), 1e-5);
  EXPECT_EQ(figure(parts, "mtp/agreement_1"), figure(first, "mtp/agreement_1"));
  EXPECT_NEAR(parts.gradient_norm, first.gradient_norm, 1e-5 * first.gradient_norm);
}

// A module that looks beyond the end of every sequence has measured nothing.
TEST(Step, ModulesWithoutALabelReportNothing) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.sequence_length = 4;
  config.model.mtp.depth = 4;
  const StepReport report = run_steps(config, 1).reports[0];
  EXPECT_GT(figure(report, "mtp/loss_3"), 0);
  for (const auto& [key, value] : report.statistics) {
    EXPECT_TRUE(key != "mtp/loss_4" && key != "mtp/agreement_4") << key << " " << value;
  }
}

// Their gradients reach the trunk: the same data and start, another first update.
TEST(Step, PredictionChangesTheTrunksGradient) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.mtp = {.depth = 1, .weight = 0.1};
  const StepReport weak = run_steps(config, 1).reports[0];
  config.model.mtp.weight = 1;
  const StepReport strong = run_steps(config, 1).reports[0];
  EXPECT_EQ(weak.loss, strong.loss);
  EXPECT_EQ(figure(weak, "mtp/loss_1"), figure(strong, "mtp/loss_1"));
  EXPECT_GT(strong.gradient_norm, 1.2 * weak.gradient_norm);
}

// lambda from 0.3 to 0.1 as in the report: the step after the border is that of the other weight.
TEST(Step, AStageChangesTheWeightOfPrediction) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.lr = 0;
  config.model.mtp = {.depth = 1, .weight = 1};
  const Steps strong = run_steps(config, 2);
  StageSection stage;
  stage.from_tokens = config.train.batch * config.train.sequence_length;
  stage.mtp_weight = 0.1;
  config.stages = {stage};
  const Steps staged = run_steps(config, 2);
  config.stages.clear();
  config.model.mtp.weight = 0.1;
  const Steps weak = run_steps(config, 2);
  EXPECT_EQ(staged.reports[0].gradient_norm, strong.reports[0].gradient_norm);
  EXPECT_EQ(staged.reports[1].gradient_norm, weak.reports[1].gradient_norm);
  EXPECT_NE(weak.reports[1].gradient_norm, strong.reports[1].gradient_norm);
}

// A step given up between micro-batches leaves no trace: done again it gives the same bits.
class AbandonedStep : public testing::TestWithParam<std::pair<int, bool>> {};

TEST_P(AbandonedStep, ChangesNothing) {
  const auto [ranks, exact] = GetParam();
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.batch = 14;
  config.train.exact = exact;
  config.parallel.zero_stage = 1;
  config.train.dtype = "bf16";
  run_ranks(ranks, [&](Communicator& world) {
    RunTrace trace({}, world.rank());
    RankState rank(config, world, 1), unbroken(config, world, 1);
    StepRunner runner(rank, trace), other(unbroken, trace);
    for (int64_t step = 0; step < 2; ++step) {
      const Batch batch = rank.loader->batch(step, world.rank(), world.size());
      const std::vector<float> before(rank.store->master().begin(), rank.store->master().end());
      int64_t asked = 0;
      const StepReport abandoned = runner.run(batch, [&] { return ++asked == 2; });
      EXPECT_TRUE(abandoned.abandoned);
      EXPECT_EQ(asked, 2);
      EXPECT_EQ(rank.step, step);
      EXPECT_EQ(rank.updates, step);
      EXPECT_TRUE(std::equal(before.begin(), before.end(), rank.store->master().begin()));
      const StepReport again = runner.run(batch, [] { return false; }), whole = other.run(batch);
      EXPECT_FALSE(again.abandoned);
      EXPECT_EQ(again.loss, whole.loss);
      EXPECT_EQ(again.gradient_norm, whole.gradient_norm);
      const std::span<const float> a = rank.store->master(), b = unbroken.store->master();
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(OnRanks, AbandonedStep,
                         testing::Values(std::pair{1, false}, std::pair{1, true},
                                         std::pair{2, false}, std::pair{2, true},
                                         std::pair{3, false}),
                         [](const auto& info) {
                           return cat(info.param.first, info.param.second ? "Exact" : "Plain");
                         });

TEST(Step, CountsThePairsThatAttentionComputes) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  double pairs = 0;
  for (int ranks : {1, 2}) {
    run_ranks(ranks, [&](Communicator& world) {
      RunTrace trace({}, world.rank());
      RankState rank(config, world, 1);
      StepRunner runner(rank, trace);
      const StepReport report = runner.run(rank.loader->batch(0, world.rank(), ranks));
      int64_t all = 0;
      for (const MicroBatch& micro : rank.loader->batch(0, 0, 1).micro) {
        all += attended_pairs(micro, 0);
      }
      EXPECT_EQ(report.attended_pairs, static_cast<double>(all));
      if (world.rank() == 0) pairs = report.attended_pairs;
    });
  }
  // Documents of 5 to 60 tokens: far fewer than 4 rows of 32 tokens could have.
  EXPECT_LT(pairs, 4 * 32 * 33 / 2);
  EXPECT_GT(pairs, 4 * 32);
}

}  // namespace
}  // namespace shoestring
