// Training in FP8: it learns, its activations are small, and bits are kept as in bf16.

#include <gtest/gtest.h>

#include <cmath>

#include "launcher/step.h"
#include "launcher/whole_model.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// Widths that are no multiples of a tile.
RunConfig fp8_config(const ScratchFolder& folder, const std::string& run,
                     const std::string& recipe = "deepseek_v3") {
  RunConfig config = small_config(folder, run);
  config.train.dtype = "bf16";
  config.train.steps = 4;
  config.precision.recipe = recipe;
  return config;
}

// Latent attention, eight experts of which two are chosen and one that all share, and a prediction
// module: rows of an expert begin anywhere in a tile.
RunConfig sparse_config(const ScratchFolder& folder, const std::string& run) {
  RunConfig config = fp8_config(folder, run);
  config.model.kv_heads = 4;
  config.model.mla = {.kv_latent = 16, .q_latent = 16, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
  config.model.moe.experts = 8;
  config.model.moe.chosen = 2;
  config.model.moe.ffn = 24;
  config.model.moe.shared = 1;
  config.model.moe.first_dense = 1;
  config.model.mtp.depth = 1;
  return config;
}

TEST(Fp8Sparse, LearnsAsBf16Does) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "fp8");
  config.train.steps = 40;
  const RunResult narrow = train_small(config);
  config.precision = {};
  config.run.directory = folder / "bf16";
  const RunResult full = train_small(config);
  const double first = full.steps.front().at("loss"), last = full.steps.back().at("loss");
  ASSERT_LT(last, first - 0.5);
  EXPECT_NE(narrow.steps[0].at("loss"), full.steps[0].at("loss"));
  EXPECT_NEAR(narrow.steps.back().at("loss"), last, 0.1 * (first - last));
}

TEST(Fp8Sparse, PoliciesResumesAndRanksChangeNoBit) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "one");
  config.train.exact = true;
  config.train.batch = 6;
  const RunResult one = train_small(config);
  for (const char* policy : {"swiglu", "norms", "attention", "block"}) {
    SCOPED_TRACE(policy);
    RunConfig other = config;
    other.run.directory = folder / policy;
    other.train.recompute = policy;
    expect_same_run(one, train_small(other));
  }
  RunConfig ranks = config;
  ranks.run.directory = folder / "ranks";
  ranks.parallel.data_parallel = 2;
  expect_same_run(one, train_small(ranks));
  RunConfig broken = config;
  broken.run.directory = folder / "broken";
  broken.train.steps = 2;
  train_small(broken);
  broken.train.steps = 4;
  expect_same_run(one, train_small(broken));
}

// Every matrix of the blocks takes part but the router and the prediction module's projection.
TEST(Fp8Sparse, TheWatchdogSeesExpertsToo) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "run");
  config.train.steps = 1;
  config.precision.watchdog.every = 1;
  config.precision.watchdog.limit = 0.2;
  const RunResult run = train_small(config);
  const nlohmann::json& step = run.steps[0];
  for (const char* matrix :
       {"layers.0.attention.q_down", "layers.0.attention.q_up", "layers.0.attention.kv_down",
        "layers.0.attention.kv_up", "layers.0.attention.output", "layers.0.mlp.gate_up",
        "layers.1.moe.experts.gate_up", "layers.1.moe.experts.down", "layers.1.moe.shared.down",
        "mtp.0.moe.experts.down"}) {
    for (const char* product : {"fprop", "dgrad", "wgrad"}) {
      const std::string key = cat("fp8/error/", matrix, ".weight/", product);
      ASSERT_TRUE(step.contains(key)) << key;
      EXPECT_GT(step.at(key), 0.005) << key;
      EXPECT_LT(step.at(key), 0.15) << key;
      const std::string tiles = step.at(cat("fp8/amax/", matrix, ".weight/", product));
      EXPECT_NE(tiles, "") << matrix << " " << product;
    }
  }
  for (const auto& [key, value] : step.items()) {
    EXPECT_EQ(key.find("router"), std::string::npos) << key;
    EXPECT_EQ(key.find("projection"), std::string::npos) << key;
  }
}

class Fp8Training : public testing::TestWithParam<const char*> {};

TEST_P(Fp8Training, LearnsAsBf16Does) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "fp8", GetParam());
  config.train.steps = 40;
  const RunResult narrow = train_small(config);
  config.precision = {};
  config.run.directory = folder / "bf16";
  const RunResult full = train_small(config);
  EXPECT_NE(narrow.steps[0].at("loss"), full.steps[0].at("loss"));
  const double first = full.steps.front().at("loss"), last = full.steps.back().at("loss");
  ASSERT_LT(last, first - 0.5);
  EXPECT_NEAR(narrow.steps.back().at("loss"), last, 0.05 * (first - last));
  EXPECT_NEAR(narrow.summary.at("validation_loss"), full.summary.at("validation_loss"), 0.05);
}

TEST_P(Fp8Training, RecomputePoliciesChangeNoBit) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "none", GetParam());
  const RunResult plain = train_small(config);
  for (const char* policy : {"swiglu", "norms", "attention", "block"}) {
    SCOPED_TRACE(policy);
    config.run.directory = folder / policy;
    config.train.recompute = policy;
    expect_same_run(plain, train_small(config));
  }
}

TEST_P(Fp8Training, AResumedRunIsTheUnbrokenOne) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "unbroken", GetParam());
  const RunResult unbroken = train_small(config);
  config.run.directory = folder / "broken";
  config.train.steps = 2;
  train_small(config);
  config.train.steps = 4;
  expect_same_run(unbroken, train_small(config));
}

TEST_P(Fp8Training, ExactModeGivesTheSameBitsOnAnyNumberOfRanks) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "one", GetParam());
  config.train.exact = true;
  config.train.batch = 10;
  const RunResult one = train_small(config);
  for (int64_t ranks : {2, 3}) {
    SCOPED_TRACE(cat(ranks, " ranks"));
    config.run.directory = folder / cat("ranks", ranks);
    config.parallel.data_parallel = ranks;
    expect_same_run(one, train_small(config));
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Fp8Training,
                         testing::Values("deepseek_v3", "per_tensor", "mxfp8", "block_gradients"));

TEST(Fp8TrainingOptions, EveryChoiceTrainsAndTellsItselfApart) {
  const ScratchFolder folder;
  const auto hopper = [](const char* recipe, int64_t promotion, int64_t bits = 13) {
    return [=](PrecisionConfig& c) {
      c.recipe = recipe, c.accumulator = "hopper";
      c.promotion = promotion, c.accumulator_bits = bits;
    };
  };
  const std::vector<std::pair<std::string, std::function<void(PrecisionConfig&)>>> choices = {
      {"plain", [](PrecisionConfig&) {}},
      {"exact", [](PrecisionConfig& c) { c.accumulator = "exact"; }},
      {"hopper", hopper("deepseek_v3", 128)},
      {"narrow_hopper", hopper("deepseek_v3", 128, 6)},
      {"hopper_per_tensor", hopper("per_tensor", 128)},
      {"hopper_without_promotion", hopper("per_tensor", 0)},
      {"full_copy", [](PrecisionConfig& c) { c.copy = "full"; }},
      {"full_swiglu", [](PrecisionConfig& c) { c.swiglu_inputs = "full"; }},
      {"fp8_behind_attention", [](PrecisionConfig& c) { c.attention_output_copy = "fp8"; }},
      {"e5m2_gradients", [](PrecisionConfig& c) { c.gradient_format = "e5m2"; }},
      {"powers_of_two", [](PrecisionConfig& c) { c.activation_scales = "power_of_two"; }},
      {"bf16_fprop", [](PrecisionConfig& c) { c.fprop = false; }},
      {"bf16_dgrad", [](PrecisionConfig& c) { c.dgrad = false; }},
      {"bf16_wgrad", [](PrecisionConfig& c) { c.wgrad = false; }},
      {"first_layer", [](PrecisionConfig& c) { c.first_layers_bf16 = 1; }},
      {"last_layer", [](PrecisionConfig& c) { c.last_layers_bf16 = 1; }},
      {"no_attention", [](PrecisionConfig& c) { c.keep_bf16 = {"attention"}; }}};
  std::set<std::string> seen;
  for (const auto& [name, change] : choices) {
    SCOPED_TRACE(name);
    RunConfig config = fp8_config(folder, name);
    config.train.steps = 2;
    config.model.ffn = 160;  // sums of more than 128 products
    change(config.precision);
    const RunResult run = train_small(config);
    const double norm = run.steps[1].at("gradient_norm");
    EXPECT_TRUE(std::isfinite(norm));
    seen.insert(cat(text_of_step(run.steps[0]), text_of_step(run.steps[1])));
  }
  EXPECT_EQ(seen.size(), choices.size());
}

TEST(Fp8TrainingOptions, TheRunsConfigSaysEveryChoice) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "run");
  config.train.steps = 1;
  train_small(config);
  const std::string text = read_file(config.run.directory + "/config.toml");
  EXPECT_NE(text.find("activation_tile = \"1x128\""), std::string::npos);
  EXPECT_NE(text.find("accumulator = \"fast\""), std::string::npos);
}

// Activations that the backward pass holds, and codes of weights beside them.
struct Bytes {
  int64_t activations = 0, weights = 0;
};
Bytes bytes_of_a_step(const RunConfig& config) {
  Bytes bytes;
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    const BatchTensors tensors = to_device(rank.device, rank.loader->batch(0, 0, 1).micro[0]);
    WholeModel whole(rank);
    Tape tape(rank.compute, whole.source(), Tape::Mode::training);
    LayerContext context{.tape = tape, .batch = tensors, .fp8 = rank.fp8.get()};
    whole.model().run_blocks(context, whole.model().embed(context));
    bytes = {rank.device.ledger().current(MemoryKind::activations),
             rank.device.ledger().current(MemoryKind::weights)};
  });
  return bytes;
}

TEST(Fp8TrainingOptions, SavesTheBytesThatItShould) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "bytes");
  config.model.hidden = 256;
  config.model.ffn = 640;
  config.model.head_dim = 64;
  config.train.micro_batch = 4;
  const Bytes narrow = bytes_of_a_step(config);
  config.precision = {};
  const Bytes full = bytes_of_a_step(config);
  // A token and block in bf16: the inputs of qkv and of gate and up (d each), gate, up and their
  // product (3 f). In FP8: one byte and a 32nd for the inputs and for gate and up; no product.
  const int64_t tokens = 4 * 32, d = 256, f = 640, layers = 2;
  const double saved = 2.0 * static_cast<double>(2 * d + 3 * f) -
                       (1 + 4.0 / 128) * static_cast<double>(2 * d + 2 * f);
  // Behind attention 12 bits and a 32nd, which attention's own gradient reads too.
  const double behind = static_cast<double>(d) * (2 - 1.5 - 4.0 / 128);
  const double want = static_cast<double>(tokens * layers) * (saved + behind);
  EXPECT_NEAR(static_cast<double>(full.activations - narrow.activations), want, 0.02 * want);
  // Codes of every matrix of the blocks: a byte an element and a scale a block.
  const int64_t elements = layers * ((256 + 2 * 128) * d + d * d + 3 * f * d);
  EXPECT_NEAR(static_cast<double>(narrow.weights - full.weights), static_cast<double>(elements),
              0.01 * static_cast<double>(elements));
}

// One copy behind attention for all who read it, or one beside the values that attention keeps.
TEST(Fp8TrainingOptions, TheCopyBehindAttentionTakesTheBytesOfItsFormat) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "bytes");
  config.model.hidden = 256;
  config.model.head_dim = 64;
  config.train.micro_batch = 4;
  auto kept = [&](const char* copy) {
    config.precision.attention_output_copy = copy;
    return bytes_of_a_step(config).activations;
  };
  const int64_t rows = 4 * 32 * config.model.layers, width = 256, scales = 4 * 2;
  const int64_t full = kept("full");
  EXPECT_EQ(full - kept("e5m6"), rows * (2 * width - (width * 12 / 8 + scales)));
  EXPECT_EQ(kept("fp8") - full, rows * (width + scales));
}

// The backward pass of a micro-batch in one go, or with all weight gradients put off.
struct Backward {
  std::vector<float> gradients;
  int64_t owed_bytes = 0;  // between the phases
};
Backward backward_of_a_step(const RunConfig& config, bool put_off) {
  Backward result;
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    const BatchTensors tensors = to_device(rank.device, rank.loader->batch(0, 0, 1).micro[0]);
    WholeModel whole(rank);
    Tape tape(rank.compute, whole.source(), Tape::Mode::training);
    LayerContext context{.tape = tape,
                         .batch = tensors,
                         .recompute = recompute_from_name(config.train.recompute),
                         .fp8 = rank.fp8.get()};
    rank.store->zero_gradients();
    std::vector<PredictionResult> predictions;
    whole.model().run(context, {.loss_scale = 1.0 / 100, .predictions = &predictions});
    if (put_off) {
      tape.backward_input();
      result.owed_bytes = tape.weight_arena().bytes();
      tape.backward_weight();
      EXPECT_EQ(tape.weight_arena().bytes(), 0);
    } else {
      tape.backward();
    }
    result.gradients.assign(rank.store->gradients().begin(), rank.store->gradients().end());
  });
  return result;
}

// What zero-bubble schedules hold between a micro-batch's two phases: codes of both operands.
TEST(Fp8TrainingOptions, GradientsThatAreOwedAreHeldInCodes) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "owed");
  config.model.hidden = 256;
  config.model.ffn = 640;
  config.model.head_dim = 64;
  config.train.micro_batch = 4;
  const int64_t narrow = backward_of_a_step(config, true).owed_bytes;
  config.precision = {};
  const int64_t full = backward_of_a_step(config, true).owed_bytes;
  // Inputs of qkv, output, gate and up; in bf16 the product of gate and up, in FP8 both of them.
  // Gradients of the four outputs.
  const int64_t rows = 4 * 32 * config.model.layers, d = 256, f = 640, qkv = d + 2 * 128;
  const int64_t embedding = 4 * 32 * (4 + 2 * d);  // its ids and the gradient of its rows
  EXPECT_EQ(full, rows * 2 * (3 * d + f + qkv + d + 2 * f + d) + embedding);
  auto codes = [](int64_t columns) { return columns + columns * 4 / 128; };
  EXPECT_EQ(narrow, rows * (2 * codes(d) + (d * 12 / 8 + d * 4 / 128) + codes(2 * f) + codes(qkv) +
                            codes(d) + codes(2 * f) + codes(d)) +
                        embedding);
}

TEST(Fp8TrainingOptions, PuttingOffWeightGradientsChangesNoBit) {
  const ScratchFolder folder;
  for (const char* recipe : {"deepseek_v3", "per_tensor", "mxfp8", "block_gradients"}) {
    for (const char* policy : {"none", "attention", "block"}) {
      for (const bool sparse : {false, true}) {
        SCOPED_TRACE(cat(recipe, " ", policy, sparse ? " sparse" : " dense"));
        RunConfig config =
            sparse ? sparse_config(folder, "put_off") : fp8_config(folder, "put_off");
        config.precision.recipe = recipe;
        config.train.recompute = policy;
        const Backward at_once = backward_of_a_step(config, false);
        EXPECT_EQ(at_once.gradients, backward_of_a_step(config, true).gradients);
        EXPECT_NE(at_once.gradients, std::vector<float>(at_once.gradients.size(), 0));
      }
    }
  }
}

int64_t moment_bytes(const RunConfig& config) {
  int64_t bytes = 0;
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    bytes = rank.device.ledger().current(MemoryKind::moments);
  });
  return bytes;
}

TEST(Fp8TrainingOptions, TheRecipeHasBf16MomentsUnlessTheOptimiserSaysOtherwise) {
  const ScratchFolder folder;
  RunConfig config = fp8_config(folder, "moments", "bf16");
  const int64_t full = moment_bytes(config);
  config.precision.recipe = "deepseek_v3";
  EXPECT_EQ(moment_bytes(config) * 2, full);
  config.optim.moments = "f32";
  EXPECT_EQ(moment_bytes(config), full);
  config.optim.moments.reset();
  config.precision.moments = "f32";
  EXPECT_EQ(moment_bytes(config), full);
  config.precision = {};
  config.precision.recipe = "per_tensor";
  EXPECT_EQ(moment_bytes(config), full);
}

// A run that was begun with the other type goes on: the moments are rounded once, or widened.
TEST(Fp8TrainingOptions, CheckpointsOfEitherMomentsAreTakenUp) {
  const ScratchFolder folder;
  for (const bool narrow_first : {false, true}) {
    RunConfig config = fp8_config(folder, narrow_first ? "narrow" : "wide");
    auto set = [&](bool narrow) {
      config.optim.moments.reset();
      if (!narrow) config.optim.moments = "f32";
    };
    set(narrow_first);
    config.train.steps = 2;
    train_small(config);
    set(!narrow_first);
    config.train.steps = 4;
    const RunResult run = train_small(config);
    ASSERT_EQ(run.steps.size(), 4u);
    EXPECT_TRUE(std::isfinite(run.steps.back().at("loss").get<double>()));
    const std::string text = read_file(config.run.directory + "/config.toml");
    const std::string type = narrow_first ? "f32" : "bf16";
    EXPECT_EQ(text.find(cat("\nmoments = \"", narrow_first ? "bf16" : "f32", "\"")),
              std::string::npos);
    EXPECT_NE(text.find(cat("\nmoments = \"", type, "\"")), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
