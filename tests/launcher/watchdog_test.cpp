#include "launcher/watchdog.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/text.h"
#include "launcher/saving.h"
#include "launcher/step.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig watched_config(const ScratchFolder& folder, const std::string& run = "run") {
  RunConfig config = small_config(folder, run);
  config.train.dtype = "bf16";
  config.train.steps = 4;
  config.precision.recipe = "deepseek_v3";
  config.precision.watchdog.every = 2;
  config.optim.lr = 0;  // what a test does to the weights stays
  return config;
}

// One channel of the values between a norm and its matrix is 2^22 times the others, and the matrix
// takes it back: the same function, but in FP8 every other channel of a tile becomes 0.
void inject_outlier(ParamStore& store) {
  store.master(store.param("layers.1.mlp_norm.gain")).data<float>()[5] *= 0x1p22f;
  const Param& p = store.param("layers.1.mlp.gate_up.weight");
  float* w = store.master(p).data<float>();
  for (int64_t row = 0; row < p.info.shape[0]; ++row) w[row * p.info.shape[1] + 5] *= 0x1p-22f;
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

double value_of(const MetricsRecord& record, const std::string& name) {
  for (const auto& [key, value] : record.items()) {
    if (key != name) continue;
    if (const int64_t* n = std::get_if<int64_t>(&value)) return static_cast<double>(*n);
    return std::get<double>(value);
  }
  ADD_FAILURE() << "no " << name;
  return NAN;
}

TEST(Watchdog, FindsExactlyTheLayerWithAnOutlierChannel) {
  const ScratchFolder folder;
  const RunConfig config = watched_config(folder);
  for (int ranks : {1, 2}) {
    SCOPED_TRACE(cat(ranks, " ranks"));
    run_ranks(ranks, [&](Communicator& world) {
      RunTrace trace({}, world.rank());
      RankState rank(config, world, 1);
      StepRunner runner(rank, trace);
      inject_outlier(*rank.store);
      const StepReport first = runner.run(rank.loader->batch(0, world.rank(), ranks));
      EXPECT_TRUE(first.fallen.empty());  // not due
      EXPECT_TRUE(first.watchdog.items().empty());
      const StepReport second = runner.run(rank.loader->batch(1, world.rank(), ranks));
      ASSERT_EQ(second.fallen.size(), 1u);
      EXPECT_EQ(second.fallen[0].matrix, "layers.1.mlp.gate_up.weight");
      EXPECT_EQ(second.fallen[0].product, "fprop");
      EXPECT_GT(second.fallen[0].error, 0.15);
      EXPECT_GT(second.fallen[0].slower, 0.05);
      EXPECT_EQ(value_of(second.watchdog, "fp8/fallen"), 1);
      for (const Fp8Layer* layer : rank.fp8->layers()) {
        const bool fallen = layer->param().info.name == "layers.1.mlp.gate_up.weight";
        EXPECT_EQ(rank.fp8->fell_back(layer->param()), fallen) << layer->param().info.name;
        EXPECT_EQ(rank.fp8->layer(layer->param()) == nullptr, fallen);
      }
    });
  }
}

TEST(Watchdog, TellsOfEveryMatrixAndProduct) {
  const ScratchFolder folder;
  const RunConfig config = watched_config(folder);
  run_ranks(1, [&](Communicator& world) {
    RunTrace trace({}, 0);
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    runner.run(rank.loader->batch(0, 0, 1));
    const StepReport report = runner.run(rank.loader->batch(1, 0, 1));
    EXPECT_TRUE(report.fallen.empty());
    for (int layer = 0; layer < 2; ++layer) {
      for (const char* matrix : {"attention.qkv", "attention.output", "mlp.gate_up", "mlp.down"}) {
        for (const char* product : {"fprop", "dgrad", "wgrad"}) {
          const std::string at = cat("layers.", layer, ".", matrix, ".weight/", product);
          const double error = value_of(report.watchdog, "fp8/error/" + at);
          EXPECT_GT(error, 0.005) << at;
          EXPECT_LT(error, 0.12) << at;
          EXPECT_EQ(value_of(report.watchdog, "fp8/saturated/" + at), 0) << at;
          EXPECT_LT(value_of(report.watchdog, "fp8/flushed/" + at), 0.1) << at;
        }
      }
    }
    EXPECT_EQ(value_of(report.watchdog, "fp8/fallen"), 0);
  });
}

TEST(Watchdog, WatchingChangesNoBit) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder, "watched");
  config.optim.lr = 5e-3;
  const RunResult watched = train_small(config);
  config.precision.watchdog.every = 0;
  config.run.directory = folder / "alone";
  expect_same_run(watched, train_small(config));
  EXPECT_TRUE(watched.steps[1].contains("fp8/error/layers.0.mlp.down.weight/dgrad"));
  EXPECT_TRUE(watched.steps[1].at("fp8/amax/layers.0.mlp.down.weight/dgrad").is_string());
  EXPECT_FALSE(watched.steps[0].contains("fp8/fallen"));
}

// Also of experts, of latent attention and of a prediction module.
TEST(Watchdog, RecomputeIsNotComparedAgain) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder, "none");
  config.train.steps = 1;
  config.precision.watchdog.every = 1;
  config.model.kv_heads = 4;
  config.model.mla = {.kv_latent = 16, .q_latent = 16, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
  config.model.moe = {.experts = 8, .chosen = 2, .ffn = 24};
  config.model.moe.shared = 1;
  config.model.moe.first_dense = 1;
  config.model.mtp.depth = 1;
  const auto figures = [&] {
    std::map<std::string, nlohmann::json> found;
    const RunResult run = train_small(config);
    for (const auto& [key, value] : run.steps[0].items()) {
      if (key.starts_with("fp8/")) found[key] = value;
    }
    return found;
  };
  const auto plain = figures();
  ASSERT_TRUE(plain.contains("fp8/error/layers.1.moe.experts.down.weight/fprop"));
  for (const char* policy : {"swiglu", "norms", "attention", "block"}) {
    config.run.directory = folder / policy;
    config.train.recompute = policy;
    EXPECT_EQ(figures(), plain) << policy;
  }
}

TEST(Watchdog, TellsOfTilesOfZeros) {
  const ScratchFolder folder;
  const RunConfig config = watched_config(folder);
  run_ranks(1, [&](Communicator& world) {
    RunTrace trace({}, 0);
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    const Param& down = rank.store->param("layers.0.mlp.down.weight");
    for (int64_t i = 0; i < down.elements; ++i) rank.store->master(down).data<float>()[i] = 0;
    rank.store->refresh_compute(0, rank.store->elements());
    rank.store->raise_version();
    runner.run(rank.loader->batch(0, 0, 1));
    const StepReport report = runner.run(rank.loader->batch(1, 0, 1));
    for (const auto& [key, value] : report.watchdog.items()) {
      if (key != "fp8/amax/layers.0.mlp.down.weight/fprop") continue;
      EXPECT_EQ(std::get<std::string>(value).find("-inf:1 "), 0u) << std::get<std::string>(value);
      return;
    }
    FAIL() << "no histogram";
  });
}

TEST(Watchdog, WaitsForAsManyFailuresInARowAsItIsTold) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.precision.watchdog.every = 1;
  config.precision.watchdog.strikes = 3;
  run_ranks(1, [&](Communicator& world) {
    RunTrace trace({}, 0);
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    inject_outlier(*rank.store);
    for (int64_t step = 0; step < 3; ++step) {
      const StepReport report = runner.run(rank.loader->batch(step, 0, 1));
      EXPECT_EQ(report.fallen.size(), step == 2 ? 1u : 0u) << step;
      const Fp8Watchdog::State state = rank.watchdog->state();
      ASSERT_EQ(state.strikes.size(), 1u);
      EXPECT_EQ(state.strikes[0].second, step + 1);
    }
  });
}

TEST(Watchdog, ItsStateIsPartOfTheCheckpoint) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.precision.watchdog.limit = 1e-6;  // every matrix fails
  config.optim.lr = 5e-3;
  config.cost.price_per_hour = 3600;
  config.train.steps = 2;
  const RunResult fell = train_small(config);
  EXPECT_EQ(fell.steps[1].at("fp8/fallen"), 8);
  EXPECT_GE(fell.steps[1].at("fp8/fallback_cost"), 0.0);
  EXPECT_GT(fell.steps[1].at("fp8/fallback_slower"), 0.1);
  config.train.steps = 4;
  const RunResult resumed = train_small(config);
  EXPECT_EQ(resumed.steps[3].at("fp8/fallen"), 8);
  EXPECT_FALSE(resumed.steps[3].contains("fp8/fell_back"));
  // From there on it is bf16's training, bit for bit the unbroken run's.
  config.run.directory = folder / "unbroken";
  expect_same_run(resumed, train_small(config));
}

// Failures in a row are counted over a stop: after three of them, of which two came before it.
TEST(Watchdog, StrikesArePartOfTheCheckpoint) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.precision.watchdog = {.every = 1, .limit = 1e-6, .strikes = 3};
  config.train.steps = 2;
  EXPECT_EQ(train_small(config).steps[1].at("fp8/fallen"), 0);
  config.train.steps = 3;
  EXPECT_EQ(train_small(config).steps[2].at("fp8/fallen"), 8);
}

// Steps without FP8, or with other matrices in it, put nothing back and forget no failure.
TEST(Watchdog, OtherRecipesOnTheWayLoseNothing) {
  const ScratchFolder folder;
  for (const int64_t strikes : {1, 2}) {
    SCOPED_TRACE(cat(strikes, " strikes"));
    RunConfig config = watched_config(folder, cat("run", strikes));
    config.precision.watchdog = {.every = 1, .limit = 1e-6, .strikes = strikes};
    config.train.steps = 1;
    EXPECT_EQ(train_small(config).steps[0].at("fp8/fallen"), strikes == 1 ? 8 : 0);
    const PrecisionConfig narrow = config.precision;
    config.precision = {};
    config.train.steps = 2;
    EXPECT_FALSE(train_small(config).steps[1].contains("fp8/fallen"));
    config.precision = narrow;
    config.precision.watchdog.every = 0;
    config.precision.keep_bf16 = {"mlp"};
    config.train.steps = 3;
    train_small(config);
    config.precision = narrow;
    config.train.steps = 4;
    const RunResult back = train_small(config);
    EXPECT_EQ(back.steps[3].at("fp8/fallen"), 8);
    EXPECT_EQ(back.steps[3].contains("fp8/fell_back"), strikes == 2);
  }
}

TEST(Watchdog, PricesAFallbackByTheTimeThatProductsTake) {
  Device device;
  ModelConfig model{.layers = 1, .hidden = 64, .ffn = 64, .heads = 2, .kv_heads = 2};
  model.vocabulary = 64;
  ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::bf16);
  PrecisionConfig precision;
  precision.recipe = "deepseek_v3";
  precision.watchdog = {.every = 1, .limit = 0.1, .strikes = 1, .chip_speedup = 2};
  Fp8Plan plan(resolve(precision), store, 1);
  Fp8Watchdog watchdog(precision.watchdog, model, plan);
  Fp8Probe& probe = watchdog.probe();
  const Tensor zero = Tensor::zeros(device, {2, 2}, Dtype::f32);
  Tensor one = Tensor::zeros(device, {2, 2}, Dtype::f32);
  one.data<float>()[0] = 1;
  const Param& down = store.param("layers.0.mlp.down.weight");
  probe.compare(down.index, LinearProduct::wgrad, zero, one);
  std::vector<Fp8Fallback> fallen;
  run_ranks(1, [&](Communicator& world) {
    Stream stream = Stream::immediate(device);
    watchdog.finish(world, stream, fallen);
  });
  ASSERT_EQ(fallen.size(), 1u);
  EXPECT_EQ(fallen[0].product, "wgrad");
  EXPECT_EQ(fallen[0].error, 1);
  // In units of 64 x 64: qkv 3, output 1, gate and up 2, down 1 in FP8, the head 1 in bf16.
  EXPECT_NEAR(fallen[0].slower, 0.5 / (1 + 7 / 2.0), 1e-12);
}

}  // namespace
}  // namespace shoestring
