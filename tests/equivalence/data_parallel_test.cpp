// Training on several ranks against training on one: bit for bit in exact mode, within rounding
// otherwise; ZeRO-1, checked mode and resumes on other layouts change nothing.

#include <gtest/gtest.h>

#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

struct Layout {
  int64_t ranks = 1, zero_stage = 0;
};

RunResult train_on(const ScratchFolder& folder, RunConfig config, Layout layout,
                   const std::string& run) {
  config.run.directory = folder / run;
  config.parallel.data_parallel = layout.ranks;
  config.parallel.zero_stage = layout.zero_stage;
  return train_small(config);
}

// Five micro-batches a step: uneven on 2, 3 and 4 ranks; small buckets, so that there are many.
RunConfig uneven_config(const ScratchFolder& folder, const std::string& dtype) {
  RunConfig config = small_config(folder);
  config.train.dtype = dtype;
  config.train.batch = 10;
  config.train.steps = 4;
  config.parallel.bucket_mb = 0.02;
  config.optim.ema_decay = 0.9;
  return config;
}

class DataParallelTraining : public testing::TestWithParam<std::string> {};

TEST_P(DataParallelTraining, ExactModeGivesTheSameBitsOnAnyNumberOfRanks) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, GetParam());
  config.train.exact = true;
  const RunResult one = train_on(folder, config, {}, "one");
  for (int64_t ranks : {2, 3, 4}) {
    for (int64_t zero_stage : {0, 1}) {
      SCOPED_TRACE(cat(ranks, " ranks, zero_stage ", zero_stage));
      const RunResult many =
          train_on(folder, config, {ranks, zero_stage}, cat("run", ranks, zero_stage));
      expect_same_run(one, many);
      EXPECT_EQ(one.summary.at("validation_loss"), many.summary.at("validation_loss"));
    }
  }
}

TEST_P(DataParallelTraining, PlainModeStaysCloseToOneRank) {
  const ScratchFolder folder;
  const RunConfig config = uneven_config(folder, GetParam());
  const RunResult one = train_on(folder, config, {}, "one");
  // Sums of the same terms in another order: a few roundings of f32 (of bf16 inputs, the same).
  const double first = 1e-6, later = GetParam() == "f32" ? 1e-4 : 2e-3;
  for (int64_t ranks : {2, 3, 7}) {
    SCOPED_TRACE(cat(ranks, " ranks"));
    const RunResult many = train_on(folder, config, {ranks, 0}, cat("run", ranks));
    ASSERT_EQ(many.steps.size(), one.steps.size());
    for (size_t i = 0; i < one.steps.size(); ++i) {
      const double bound = i == 0 ? first : later;
      for (const char* key : {"loss", "gradient_norm"}) {
        const double a = one.steps[i].at(key), b = many.steps[i].at(key);
        EXPECT_NEAR(a, b, bound * a) << key << " of step " << i + 1;
      }
    }
    // The shards of ZeRO-1 see the same sums.
    const RunResult sharded = train_on(folder, config, {ranks, 1}, cat("sharded", ranks));
    expect_same_run(many, sharded);
  }
}

TEST_P(DataParallelTraining, GoesOnInAnotherLayout) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, GetParam());
  config.train.exact = true;
  config.optim.stochastic_rounding = GetParam() == "bf16";
  config.train.steps = 6;
  const RunResult unbroken = train_on(folder, config, {}, "unbroken");
  config.train.steps = 2;
  train_on(folder, config, {2, 1}, "broken");
  config.train.steps = 4;
  train_on(folder, config, {3, 0}, "broken");
  config.train.steps = 5;
  train_on(folder, config, {4, 1}, "broken");
  config.train.steps = 6;
  expect_same_run(unbroken, train_on(folder, config, {1, 0}, "broken"));
}

INSTANTIATE_TEST_SUITE_P(Dtype, DataParallelTraining, testing::Values("f32", "bf16"),
                         [](const auto& info) { return info.param; });

// Latent attention, and prediction modules that use embedding and head several times a micro-batch.
TEST(DataParallelOptions, ALatentModelThatPredictsIsTheSameOnAnyNumberOfRanks) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, "bf16");
  config.train.exact = true;
  config.model.mla = {.kv_latent = 16, .q_latent = 12, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
  config.model.mtp.depth = 2;
  for (bool tied : {false, true}) {
    config.model.tied_embeddings = tied;
    const RunResult one = train_on(folder, config, {}, cat("latent", tied));
    for (int64_t ranks : {2, 3}) {
      const RunResult many = train_on(folder, config, {ranks, 1}, cat("latent", ranks, tied));
      expect_same_run(one, many);
      for (const char* key : {"mtp/loss_1", "mtp/agreement_1", "mtp/loss_2", "mtp/agreement_2"}) {
        EXPECT_EQ(one.steps.back().at(key), many.steps.back().at(key)) << key;
      }
    }
    config.train.recompute = "block";
    expect_same_run(one, train_on(folder, config, {}, cat("again", tied)));
    config.train.recompute = "none";
  }
}

// Whole counts make the biases' steps, and each expert's gradient is one product a micro-batch.
TEST_P(DataParallelTraining, SparseLayersGiveTheSameBits) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, GetParam());
  config.train.exact = true;
  config.model.moe = {.experts = 6,
                      .chosen = 2,
                      .ffn = 16,
                      .shared = 1,
                      .scores = "sigmoid",
                      .groups = 3,
                      .groups_chosen = 2,
                      .balance = {.bias_speed = 0.01, .sequence = 1e-3, .z_loss = 1e-3}};
  const RunResult one = train_on(folder, config, {}, "one");
  EXPECT_TRUE(one.tensors.contains("model/layers.1.moe.router.bias"));
  for (int64_t ranks : {2, 3}) {
    expect_same_run(one, train_on(folder, config, {ranks, ranks - 2}, cat("run", ranks)));
  }
}

TEST(DataParallelOptions, MuonKeepsMatricesWholeUnderZero1) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, "f32");
  config.optim.optimizer = "muon";
  config.train.exact = true;
  const RunResult one = train_on(folder, config, {}, "one");
  expect_same_run(one, train_on(folder, config, {3, 1}, "three"));
}

TEST(DataParallelOptions, CheckedModeChangesNothing) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, "f32");
  const RunResult plain = train_on(folder, config, {3, 1}, "plain");
  config.parallel.checked = true;
  expect_same_run(plain, train_on(folder, config, {3, 1}, "checked"));
}

TEST(DataParallelOptions, MoreRanksThanMicroBatches) {
  const ScratchFolder folder;
  RunConfig config = uneven_config(folder, "f32");
  config.train.batch = 2;
  config.train.exact = true;
  const RunResult one = train_on(folder, config, {}, "one");
  expect_same_run(one, train_on(folder, config, {3, 1}, "three"));
}

}  // namespace
}  // namespace shoestring
