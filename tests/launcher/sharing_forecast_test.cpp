#include "launcher/sharing_forecast.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

RunConfig dense(const ScratchFolder& folder) {
  RunConfig config = parity_config(folder);
  config.model.moe = {};
  config.model.layers = 8;
  config.train.batch = 16;
  config.parallel.zero_stage = 2;
  return config;
}

// Where gradients of the weights come late, those of several slots are there at once; stages that
// use one embedding have a part each.
TEST(SharingForecast, BoundsGradientsThatWait) {
  const ScratchFolder folder;
  struct Layout {
    const char* schedule;
    int64_t pp, data;
    bool exact = false;
  };
  for (const Layout& layout :
       {Layout{"zb-h2", 2, 2}, Layout{"zb-v", 2, 1}, Layout{"1f1b", 2, 2}, Layout{"gpipe", 2, 1},
        Layout{"dualpipe", 2, 2}, Layout{"zb-h1", 4, 1, true}, Layout{"1f1b", 1, 2}}) {
    RunConfig config = dense(folder);
    config.mesh.pp = layout.pp;
    config.parallel.data_parallel = layout.data;
    config.pipeline.schedule = layout.schedule;
    if (layout.exact) config.train.exact = true, config.parallel.zero_stage = 0;
    const ParityStep step = run_parity_step(config);
    const MemoryFigure& f = step.memory[static_cast<size_t>(MemoryKind::gradients)];
    EXPECT_LE(f.peak, f.forecast) << layout.schedule << ", rank " << f.rank;
    EXPECT_GE(3 * f.peak, f.forecast) << layout.schedule;
  }
}

int64_t most_gradients(const RunConfig& config, int rank, int ranks, int64_t micro_batches) {
  const RankShare share = share_of(config, ranks, rank, micro_batches);
  SharingForecast sharing(config, share);
  int64_t most = 0;
  for (const Instruction& i : share.program) most = std::max(most, sharing.at(i).gradients);
  return most;
}

// Of a deep model a few units are whole at once; of a long step in DualPipe a few micro-batches'.
TEST(SharingForecast, HoldsWhatIsThereAtOnce) {
  const ScratchFolder folder;
  RunConfig config = dense(folder);
  config.model.vocabulary = small_vocabulary;
  config.parallel.data_parallel = 2;
  const auto of_layers = [&](int64_t layers) {
    config.model.layers = layers;
    return most_gradients(config, 0, 2, 4);
  };
  EXPECT_EQ(of_layers(32), of_layers(8));
  config.mesh.pp = 2;
  config.pipeline.schedule = "dualpipe";
  EXPECT_EQ(most_gradients(config, 0, 4, 64), most_gradients(config, 0, 4, 16));
  config.pipeline.schedule = "gpipe";
  EXPECT_GT(most_gradients(config, 3, 4, 64), most_gradients(config, 3, 4, 16));  // of the head
}

// Unit by unit without a pipeline; the tied embedding for a whole micro-batch.
TEST(SharingForecast, GathersTwoUnitsAndWhatIsHeld) {
  const ScratchFolder folder;
  RunConfig config = dense(folder);
  config.model.vocabulary = small_vocabulary;
  config.train.dtype = "bf16";
  config.parallel.zero_stage = 3;
  config.parallel.data_parallel = 2;
  RankShare share = share_of(config, 2, 0, 4);
  SharingForecast sharing(config, share);
  const int64_t d = config.model.hidden, f = config.model.ffn;
  const int64_t head = d / config.model.heads, gain = 64;  // to whole lines of 64 elements
  const int64_t attention = gain + d * (d + 2 * config.model.kv_heads * head) + d * d;
  const int64_t mlp = gain + 3 * d * f;
  EXPECT_EQ(sharing.at(share.program.front()).weights,
            2 * (small_vocabulary * d + attention + mlp));
  // In a pipeline a stage's from its gather to its release.
  config.mesh.pp = 2;
  share = share_of(config, 4, 0, 4);
  SharingForecast of_stage(config, share);
  int64_t most = 0, last = 0;
  for (const Instruction& i : share.program) {
    last = of_stage.at(i).weights;
    most = std::max(most, last);
  }
  EXPECT_EQ(most, 2 * (small_vocabulary * d + 4 * (attention + mlp)));
  EXPECT_EQ(share.program.back().what, Do::R);
  EXPECT_EQ(of_stage.at({.what = Do::W, .stage = 0, .micro = 0}).weights, 0) << last;
}

// What a run says at its start beside what its ledger saw, all kinds together.
TEST(SharingForecast, MakesTheForecastOfARunThatOfItsPeak) {
  const ScratchFolder folder;
  struct Layout {
    const char* schedule;
    int64_t pp, data, zero;
    bool exact = false;
  };
  for (const Layout& layout :
       {Layout{"1f1b", 1, 2, 2}, Layout{"1f1b", 1, 2, 3}, Layout{"1f1b", 2, 2, 2},
        Layout{"zb-h2", 2, 2, 3}, Layout{"zb-v", 2, 2, 3}, Layout{"dualpipe", 2, 2, 2},
        Layout{"dualpipe", 2, 2, 3}, Layout{"1f1b", 2, 1, 0, true}}) {
    RunConfig config = dense(folder);
    config.run.directory = folder / cat(layout.schedule, layout.pp, layout.zero, layout.exact);
    config.model.hidden = 64, config.model.ffn = 176;
    config.train.steps = 2;
    config.mesh.pp = layout.pp;
    config.parallel.data_parallel = layout.data;
    config.parallel.zero_stage = layout.zero;
    config.pipeline.schedule = layout.schedule;
    config.train.exact = layout.exact;
    const RunResult run = train_small(config);
    const double forecast = run.summary.at("ledger_forecast_bytes"),
                 peak = run.summary.at("ledger_peak_bytes");
    std::printf("%s: peak %.3f of the forecast\n", config.run.directory.c_str(), peak / forecast);
    EXPECT_LE(peak, 1.03 * forecast) << config.run.directory;
    EXPECT_GE(peak, 0.7 * forecast) << config.run.directory;
  }
}

}  // namespace
}  // namespace shoestring
