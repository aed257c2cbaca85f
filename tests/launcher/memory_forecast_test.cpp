#include "launcher/memory_forecast.h"

#include <gtest/gtest.h>

#include <functional>

#include "launcher/parameter_counts.h"
#include "tests/launcher/training_fixture.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

struct Case {
  const char* name;
  std::function<void(RunConfig&)> change;
  double above = 0.03;  // of the peak, at most
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

MoeConfig sparse() { return {.experts = 8, .chosen = 3, .ffn = 96}; }

class Forecast : public testing::TestWithParam<Case> {};

// What a run says at its start against what the ledger saw by its end.
TEST_P(Forecast, IsNotBelowThePeakAndLittleAbove) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.layers = 3;
  config.model.hidden = 128;
  config.model.ffn = 352;
  config.model.max_positions = 512;
  config.train.sequence_length = 256;
  config.train.batch = 8;
  config.train.micro_batch = 4;
  config.train.steps = 2;
  config.train.evaluate_sequences = 0;
  GetParam().change(config);
  const RunResult run = train_small(config);
  const double forecast = run.summary.at("ledger_forecast_bytes"),
               peak = run.summary.at("ledger_peak_bytes");
  std::printf("forecast %.4f of the peak\n", forecast / peak);
  EXPECT_GE(forecast, peak) << forecast - peak << " bytes above: " << run.steps.back();
  EXPECT_LE(forecast, (1 + GetParam().above) * peak) << run.steps.back();
}

void set_latent(RunConfig& c) {
  c.model.mla = {.kv_latent = 48, .q_latent = 64, .nope_dim = 24, .rope_dim = 16, .v_dim = 32};
}

void add_stage(RunConfig& c, int64_t from_tokens) {
  StageSection longer;
  longer.from_tokens = from_tokens;
  longer.sequence_length = 256;
  c.stages = {longer};
}

INSTANTIATE_TEST_SUITE_P(
    Configs, Forecast,
    testing::Values(Case{"f32", [](RunConfig&) {}},
                    Case{"bf16", [](RunConfig& c) { c.train.dtype = "bf16"; }},
                    Case{"recompute_swiglu", [](RunConfig& c) { c.train.recompute = "swiglu"; }},
                    Case{"recompute_norms", [](RunConfig& c) { c.train.recompute = "norms"; }},
                    Case{"recompute_attention",
                         [](RunConfig& c) { c.train.recompute = "attention"; }},
                    Case{"recompute_block", [](RunConfig& c) { c.train.recompute = "block"; }},
                    Case{"large_vocabulary", [](RunConfig& c) { c.model.vocabulary = 8192; }},
                    Case{"exact",
                         [](RunConfig& c) {
                           c.train.exact = true;
                           c.model.vocabulary = 4096;
                         }},
                    Case{"long_rows",
                         [](RunConfig& c) {
                           c.train.sequence_length = 512;
                           c.train.micro_batch = 1;
                           c.train.batch = 2;
                         }},
                    Case{"two_sharded_ranks",
                         [](RunConfig& c) {
                           c.parallel.data_parallel = 2;
                           c.parallel.zero_stage = 1;
                           c.parallel.bucket_mb = 0.5;
                         }},
                    Case{"copied_checkpoints",
                         [](RunConfig& c) {
                           c.train.steps = 3;
                           c.train.batch = 2;
                           c.train.micro_batch = 1;
                           c.train.sequence_length = 32;
                           c.checkpoint.every = 1;
                         }},
                    Case{"latent", set_latent},
                    Case{"latent_recompute_norms",
                         [](RunConfig& c) {
                           set_latent(c);
                           c.train.recompute = "norms";
                         }},
                    Case{"latent_recompute_attention",
                         [](RunConfig& c) {
                           set_latent(c);
                           c.train.recompute = "attention";
                         }},
                    Case{"prediction", [](RunConfig& c) { c.model.mtp.depth = 2; }},
                    Case{"prediction_recompute_block",
                         [](RunConfig& c) {
                           c.model.mtp.depth = 2;
                           c.train.recompute = "block";
                         }},
                    Case{"sparse", [](RunConfig& c) { c.model.moe = sparse(); }},
                    Case{"sparse_bf16_block",
                         [](RunConfig& c) {
                           c.model.moe = sparse();
                           c.model.moe.shared = 1;
                           c.train.dtype = "bf16";
                           c.train.recompute = "block";
                         }},
                    Case{"sparse_swiglu",
                         [](RunConfig& c) {
                           c.model.moe = sparse();
                           c.model.moe.first_dense = 1;
                           c.train.recompute = "swiglu";
                         }},
                    Case{"muon", [](RunConfig& c) { c.optim.optimizer = "muon"; }},
                    Case{"muon_qk_norm",
                         [](RunConfig& c) {
                           c.optim.optimizer = "muon";
                           c.model.qk_norm = true;
                         }},
                    Case{"weight_average", [](RunConfig& c) { c.optim.ema_decay = 0.999; }},
                    Case{"bf16_norms",
                         [](RunConfig& c) {
                           c.train.dtype = "bf16";
                           c.train.recompute = "norms";
                         }},
                    Case{"bf16_attention",
                         [](RunConfig& c) {
                           c.train.dtype = "bf16";
                           c.train.recompute = "attention";
                         }},
                    Case{"bf16_two_threads",
                         [](RunConfig& c) {
                           c.train.dtype = "bf16";
                           c.threads = 2;
                         }},
                    Case{"longer_rows_in_the_second_step",
                         [](RunConfig& c) {
                           c.train.sequence_length = 64;
                           add_stage(c, 8 * 64);
                         }},
                    Case{"longer_rows_behind_the_end",
                         [](RunConfig& c) {
                           c.train.sequence_length = 64;
                           add_stage(c, 2 * 8 * 64);
                         }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(RequireMemory, ComparesTheNeedWithTheMachine) {
  RunConfig config;
  config.model.vocabulary = 1000;
  const std::vector<LoadSegment> segments = {
      {.from_tokens = 0, .length = 256, .sequences = 4, .micro_batches = 8}};
  const auto fits = [&](MachineShare machine) {
    try {
      require_memory(config, segments, machine);
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage) << error.what();
      return false;
    }
  };
  // The least memory in which one rank fits; two ranks of a machine need twice as much.
  int64_t low = 0, high = int64_t{1} << 40;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits({.memory_bytes = middle}) ? high : low) = middle;
  }
  const MemoryForecast step = forecast_memory(config, {.sequences = 4, .length = 256});
  EXPECT_GT(high, step.total());
  EXPECT_FALSE(fits({.ranks = 2, .ranks_here = 2, .memory_bytes = high * 3 / 2}));
  EXPECT_TRUE(fits({.ranks = 2, .ranks_here = 1, .memory_bytes = high * 3 / 2}));
  EXPECT_TRUE(fits({.memory_bytes = memory_of_machine()}));
}

// Before the pieces are measured only what every split needs counts, then the split that will run.
TEST(RequireMemory, IsThatOfTheSplitThatRuns) {
  RunConfig config;
  config.model.vocabulary = 1000;
  config.model.layers = 8;
  config.mesh.pp = 2;
  const std::vector<LoadSegment> segments = {
      {.from_tokens = 0, .length = 256, .sequences = 4, .micro_batches = 8}};
  const auto least = [&] {
    int64_t low = 0, high = int64_t{1} << 40;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      try {
        require_memory(config, segments, {.world = 2, .memory_bytes = middle});
        high = middle;
      } catch (const Error&) {
        low = middle;
      }
    }
    return high;
  };
  const int64_t even = least();
  config.pipeline.split = "measured";
  EXPECT_LT(least(), even);
  config.pipeline.layers = {7, 1}, config.pipeline.split = "even";
  EXPECT_GT(least(), even);
}

TEST(RequireMemory, SaysWhatIsTooLarge) {
  const MachineShare machine{.memory_bytes = int64_t{1} << 36};
  RunConfig config;
  config.model.vocabulary = 1000;
  const auto refused = [&](const LoadSegment& segment, const char* part) {
    expect_error(ExitCode::usage, {"the machine has", part},
                 [&] { require_memory(config, {segment}, machine); });
  };
  const int64_t many = int64_t{1} << 28;
  refused({.length = 512, .sequences = 4, .micro_batches = many}, "smaller train.batch needs less");
  refused({.length = 512, .sequences = many, .micro_batches = 1}, "smaller train.micro_batch");
  config.model.layers = 2000;
  config.model.hidden = 8192;
  const LoadSegment one{.length = 512, .sequences = 1, .micro_batches = 1};
  refused(one, "this run needs at least");
  refused(one, ". It needs ");
  refused(one, "; a smaller model needs less");
  const MachineShare two{.ranks = 2, .ranks_here = 2, .memory_bytes = int64_t{1} << 36};
  expect_error(ExitCode::usage,
               {"Each of the 2 ranks here needs", "model or parallel.zero_stage = 1 needs less"},
               [&] { require_memory(config, {one}, two); });
  config.parallel.zero_stage = 2;
  expect_error(ExitCode::usage, {"model or parallel.zero_stage = 3 needs less"},
               [&] { require_memory(config, {one}, two); });
  config.parallel.zero_stage = 3;
  expect_error(ExitCode::usage, {"; a smaller model needs less"},
               [&] { require_memory(config, {one}, two); });
}

TEST(RequireMemory, SaysWhereTheSizesWereSet) {
  const MachineShare machine{.memory_bytes = int64_t{1} << 36};
  RunConfig config;
  config.model.vocabulary = 1000;
  config.stages.resize(2);
  config.stages[1].from_tokens = 10, config.stages[1].batch = 1 << 28;
  config.set_at = {{"train.micro_batch", "--set #1"},
                   {"train.batch", "--set #2"},
                   {"model.layers", "f.toml:3:1"},
                   {"stages.1.batch", "f.toml:9:1"}};
  const auto refused = [&](const LoadSegment& segment, const std::vector<std::string>& parts) {
    expect_error(ExitCode::usage, parts, [&] { require_memory(config, {segment}, machine); });
  };
  const int64_t many = int64_t{1} << 28;
  refused({.length = 512, .sequences = many, .micro_batches = 1},
          {"--set #1: this run needs at least ", " needs less [train.micro_batch: --set #1]"});
  refused({.length = 512, .sequences = 4, .micro_batches = many},
          {"--set #2: this run needs at least ", " needs less [train.batch: --set #2]"});
  refused({.from_tokens = 10, .length = 512, .sequences = 4, .micro_batches = many},
          {"stages.1.batch: f.toml:9:1]"});
  config.model.layers = 2000, config.model.hidden = 8192;
  refused({.length = 512, .sequences = 1, .micro_batches = 1},
          {"f.toml:3:1: this run needs at least ", " needs less [model.layers: f.toml:3:1]"});
}

TEST(RequireMemory, EachStageSharesOutWhatItDoes) {
  RunConfig config;
  config.model.vocabulary = 1000;
  config.train.dtype = "bf16";
  const double elements = parameter_counts(config.model).total;
  // Copies, gradients, masters and moments; what 64 ranks share out.
  const double bytes[] = {2 + 4 + 4 + 8, 2 + 4 + 12.0 / 64, 2 + 16.0 / 64, 18.0 / 64};
  for (int64_t stage = 0; stage < 4; ++stage) {
    config.parallel.zero_stage = stage;
    const std::string state = cat(text_of_bytes(elements * bytes[stage]), " for weights");
    const LoadSegment one{.length = 512, .sequences = 1, .micro_batches = 64};
    expect_error(ExitCode::usage, {state.c_str()},
                 [&] { require_memory(config, {one}, {.ranks = 64, .memory_bytes = 1}); });
    // Context ranks share out, too.
    RunConfig context = config;
    context.mesh.cp = 4;
    expect_error(ExitCode::usage, {state.c_str()},
                 [&] { require_memory(context, {one}, {.ranks = 16, .memory_bytes = 1}); });
  }
}

// Through the binary: at the start, before anything is allocated or written.
TEST(RequireMemory, ImpossibleBatchesAreRefusedAtTheStart) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  write_file(folder / "run.toml", dump_config(config));
  const auto refused = [&](const std::vector<std::string>& sets, const char* part) {
    std::vector<std::string> words = {"train", folder / "run.toml"};
    for (const std::string& set : sets) words.insert(words.end(), {"--set", set});
    const BinaryResult result = run_binary(words);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(config.run.directory));
  };
  refused({"train.batch=1000000000"}, "smaller train.batch needs less");
  refused({"train.batch=1000000000", "train.micro_batch=1000000000"}, "train.micro_batch");
  refused(
      {"train.batch=1000000000", "train.sequence_length=10000000", "model.max_positions=10000000"},
      "smaller train.batch needs less");
  refused({"train.batch=0"}, "train.batch");
  refused({"train.batch=-4"}, "train.batch");
  refused({"train.batch=5"}, "not a multiple of micro_batch");
}

TEST(MemoryForecast, GrowsWithTokensAndLayersAsActivationsDo) {
  RunConfig config;
  config.model.vocabulary = 1000;
  const ForecastInput input{.sequences = 2, .length = 256};
  const int64_t one = forecast_memory(config, input).activations;
  ForecastInput wider = input;
  wider.sequences = 4;
  EXPECT_EQ(forecast_memory(config, wider).activations, 2 * one);
  config.train.recompute = "block";
  EXPECT_LT(forecast_memory(config, input).activations, one);
  config.train.recompute = "none";
  config.train.dtype = "bf16";
  EXPECT_LT(forecast_memory(config, input).activations, 0.6 * static_cast<double>(one));
}

TEST(MemoryForecast, HasTheCheckpointsCopy) {
  const RunConfig config;
  const ForecastInput input{.sequences = 2, .length = 256};
  ForecastInput copying = input;
  copying.checkpoint_bytes = 12345;
  EXPECT_EQ(forecast_memory(config, copying).checkpoint, 12345);
  EXPECT_EQ(forecast_memory(config, copying).total(),
            forecast_memory(config, input).total() + 12345);
}

}  // namespace
}  // namespace shoestring
