#include "launcher/state_forecast.h"

#include <gtest/gtest.h>

#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

TEST(StateForecast, ByHand) {
  RunConfig config;
  config.train.dtype = "bf16";
  RankShare share;
  share.groups.push_back({});
  share.groups[0].params = {{.name = "a.weight", .shape = {100, 10}},
                            {.name = "b.gain", .shape = {70}}};
  const int64_t n = 1024 + 128;  // to whole lines of 64 elements
  StateForecast f = forecast_state(config, share);
  EXPECT_EQ(f.weights, 2 * n);
  EXPECT_EQ(f.master_weights, 4 * n);
  EXPECT_EQ(f.gradients, 4 * n);
  EXPECT_EQ(f.moments, 2 * (4000 + 32 + 280 + 40));  // each buffer to whole lines of 64 bytes
  EXPECT_EQ(f.total(), 10 * n + f.moments);
  config.train.dtype = "f32";
  config.train.exact = true;
  f = forecast_state(config, share);
  EXPECT_EQ(f.weights, 4 * n);
  EXPECT_EQ(f.master_weights, 0);
  EXPECT_EQ(f.gradients, 8 * n);
}

// Against the ledger of every rank, to the byte: the worst rank of each kind is told.
TEST(StateForecast, IsWhatTheLedgerCounts) {
  const ScratchFolder folder;
  const auto expect_exact = [](const RunConfig& config, const char* what) {
    const ParityStep step = run_parity_step(config);
    for (const MemoryKind kind : {MemoryKind::weights, MemoryKind::gradients,
                                  MemoryKind::master_weights, MemoryKind::moments}) {
      const MemoryFigure& f = step.memory[static_cast<size_t>(kind)];
      EXPECT_EQ(f.peak, f.forecast) << what << ", " << name_of(kind) << " of rank " << f.rank;
    }
    EXPECT_GT(step.memory[static_cast<size_t>(MemoryKind::moments)].peak, 0) << what;
  };
  RunConfig config = parity_config(folder);
  config.parallel.data_parallel = 3;
  config.parallel.zero_stage = 1;
  config.parallel.bucket_mb = 0.05;
  config.optim.ema_decay = 0.9;
  expect_exact(config, "shared state with an average");
  config.train.exact = true;
  expect_exact(config, "exact");
  for (const int64_t stage : {1, 2}) {
    config.parallel.zero_stage = stage;
    config.offload.optimizer = true;
    const ParityStep step = run_parity_step(config);
    for (const MemoryKind kind : {MemoryKind::master_weights, MemoryKind::moments}) {
      EXPECT_EQ(step.memory[static_cast<size_t>(kind)].peak, 0) << stage;
      EXPECT_EQ(step.memory[static_cast<size_t>(kind)].forecast, 0) << stage;
    }
    const MemoryFigure& weights = step.memory[static_cast<size_t>(MemoryKind::weights)];
    EXPECT_EQ(weights.peak, weights.forecast) << stage;
  }
  config.offload.optimizer = false;
  config.parallel.zero_stage = 1;
  config.train.exact = false;
  config.train.dtype = "bf16";
  config.optim.optimizer = "muon";
  config.optim.moments = "bf16";
  expect_exact(config, "muon");
  config.parallel.data_parallel = 2;
  config.mesh.pp = 2, config.mesh.ep = 2;
  expect_exact(config, "muon in a pipeline");
  config.optim.optimizer = "adamw";
  config.mesh.tp = 2;
  config.pipeline.schedule = "dualpipe";
  config.precision.recipe = "deepseek_v3";
  expect_exact(config, "codes of weights on a mesh");
}

}  // namespace
}  // namespace shoestring
