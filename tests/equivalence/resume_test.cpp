// N + N steps are 2N steps, bit for bit: losses, norms, rates, parameters and optimiser state.

#include <gtest/gtest.h>

#include <functional>

#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

struct Case {
  const char* name;
  std::function<void(RunConfig&)> change;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases_of_types() {
  return {
      {"f32", [](RunConfig&) {}},
      {"bf16", [](RunConfig& c) { c.train.dtype = "bf16"; }},
      {"bf16_moments",
       [](RunConfig& c) {
         c.train.dtype = "bf16";
         c.optim.moments = "bf16";
       }},
      {"stochastic_rounding",
       [](RunConfig& c) {
         c.train.dtype = "bf16";
         c.optim.moments = "bf16";
         c.optim.stochastic_rounding = true;
       }},
      {"f32_stochastic_moments",
       [](RunConfig& c) {
         c.optim.moments = "bf16";
         c.optim.stochastic_rounding = true;
       }},
      {"muon", [](RunConfig& c) { c.optim.optimizer = "muon"; }},
      {"muon_bf16_stochastic",
       [](RunConfig& c) {
         c.optim.optimizer = "muon";
         c.train.dtype = "bf16";
         c.optim.moments = "bf16";
         c.optim.stochastic_rounding = true;
       }},
  };
}

std::vector<Case> cases_of_options() {
  return {
      {"ema", [](RunConfig& c) { c.optim.ema_decay = 0.9; }},
      {"ema_bf16",
       [](RunConfig& c) {
         c.optim.ema_decay = 0.9;
         c.train.dtype = "bf16";
       }},
      {"ema_bf16_stochastic_evaluated",
       [](RunConfig& c) {
         c.optim.ema_decay = 0.9;
         c.train.dtype = "bf16";
         c.optim.stochastic_rounding = true;
         c.train.evaluate_every = 4;
       }},
      {"skipped_steps",
       [](RunConfig& c) {
         c.optim.skip.window = 3;
         c.optim.skip.norm_z = 0.5;  // many steps stand out by so little
         c.optim.skip.loss_z = 0.5;
       }},
      {"skipped_steps_stochastic",
       [](RunConfig& c) {
         c.train.dtype = "bf16";
         c.optim.stochastic_rounding = true;
         c.optim.skip.window = 2;
         c.optim.skip.norm_z = 0.1;
       }},
      {"ramp",
       [](RunConfig& c) {
         c.optim.ramp.tokens = {128, 448};
         c.optim.ramp.sequences = {2, 6};
       }},
      {"exact", [](RunConfig& c) { c.train.exact = true; }},
      {"tied_qk_norm_z_loss",
       [](RunConfig& c) {
         c.model.tied_embeddings = true;
         c.model.qk_norm = true;
         c.model.qkv_bias = true;
         c.train.z_loss = 1e-3;
       }},
      {"zero_1_on_three_ranks",
       [](RunConfig& c) {
         c.parallel.data_parallel = 3;
         c.parallel.zero_stage = 1;
         c.parallel.bucket_mb = 0.02;
         c.optim.ema_decay = 0.9;
         c.train.dtype = "bf16";
         c.optim.stochastic_rounding = true;
       }},
  };
}

std::vector<Case> cases_of_sparse_layers() {
  return {
      {"sparse_with_biases",
       [](RunConfig& c) {
         c.model.moe = {.experts = 6,
                        .chosen = 2,
                        .ffn = 16,
                        .shared = 1,
                        .scores = "sigmoid",
                        .balance = {.bias_speed = 0.01, .sequence = 1e-3, .global_batch = 1e-2}};
         c.optim.skip.window = 3;
         c.optim.skip.norm_z = 0.5;
       }},
      {"sparse_zero_1_on_three_ranks",
       [](RunConfig& c) {
         c.model.moe = {.experts = 6, .chosen = 2, .ffn = 16, .balance = {.bias_speed = 0.01}};
         c.parallel.data_parallel = 3;
         c.parallel.zero_stage = 1;
         c.train.dtype = "bf16";
         c.optim.ema_decay = 0.9;
       }},
  };
}

class Resume : public testing::TestWithParam<Case> {};

TEST_P(Resume, EqualsAnUnbrokenRun) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "unbroken");
  GetParam().change(config);
  const RunResult unbroken = train_small(config);
  config.run.directory = folder / "broken";
  config.train.steps = 4;
  const RunResult half = train_small(config);
  ASSERT_EQ(half.steps.size(), 4u);
  config.train.steps = 8;
  const RunResult broken = train_small(config);
  ASSERT_EQ(unbroken.steps.size(), 8u);
  expect_same_run(unbroken, broken);
  EXPECT_EQ(unbroken.summary.at("validation_loss"), broken.summary.at("validation_loss"));
  EXPECT_LT(unbroken.steps.back().at("loss"), unbroken.steps.front().at("loss"));
}

INSTANTIATE_TEST_SUITE_P(Types, Resume, testing::ValuesIn(cases_of_types()),
                         [](const auto& info) { return std::string(info.param.name); });
INSTANTIATE_TEST_SUITE_P(SparseLayers, Resume, testing::ValuesIn(cases_of_sparse_layers()),
                         [](const auto& info) { return std::string(info.param.name); });
INSTANTIATE_TEST_SUITE_P(Options, Resume, testing::ValuesIn(cases_of_options()),
                         [](const auto& info) { return std::string(info.param.name); });

// Every effect of a stage: rows, mixture, rate and positions; stopped before, at and after the
// border.
class ResumeStages : public testing::TestWithParam<int64_t> {};

TEST_P(ResumeStages, EqualsAnUnbrokenRun) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "unbroken");
  config.data.sources.push_back(
      {.name = "second", .path = folder / "second.h5", .weight = 1, .held_out = {}});
  StageSection later;
  later.from_tokens = 4 * 128;  // after the fourth step
  later.sequence_length = 64;
  later.batch = 2;
  later.micro_batch = 1;
  later.lr_multiplier = 0.5;
  later.rope_scaling = "linear";
  later.rope_factor = 2;
  later.weights = {1, 3};
  config.stages = {later};
  const RunResult unbroken = train_small(config);
  config.run.directory = folder / "broken";
  config.train.steps = GetParam();
  train_small(config);
  config.train.steps = 8;
  expect_same_run(unbroken, train_small(config));
  const double before = unbroken.steps[3].at("lr"), after = unbroken.steps[4].at("lr");
  EXPECT_LT(after, 0.6 * before);
  EXPECT_EQ(unbroken.summary.at("sources").size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(At, ResumeStages, testing::Values(3, 4, 5),
                         testing::PrintToStringParamName());

TEST(ResumeTwice, FromCheckpointsInBetween) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "unbroken");
  config.checkpoint.every = 3;
  const RunResult unbroken = train_small(config);
  config.run.directory = folder / "broken";
  for (int64_t steps : {2, 3, 7, 8}) {
    config.train.steps = steps;
    train_small(config);
  }
  expect_same_run(unbroken, result_of_run(config.run.directory));
}

TEST(ResumeTwice, AFinishedRunIsLeftAsItIs) {
  const ScratchFolder folder;
  const RunConfig config = small_config(folder);
  const RunResult first = train_small(config);
  expect_same_run(first, train_small(config));
}

}  // namespace
}  // namespace shoestring
