#include "launcher/fp8_forecast.h"

#include <gtest/gtest.h>

#include <functional>

#include "launcher/memory_forecast.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

using Change = std::function<void(RunConfig&)>;

struct Case {
  std::string name, recipe;
  Change change;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

void set_dense(RunConfig& c) {
  c.model.layers = 3;
  c.model.hidden = 128;
  c.model.ffn = 352;
}
// Latent attention, experts after a dense block, one that all share, a prediction module.
void set_sparse(RunConfig& c) {
  set_dense(c);
  c.model.kv_heads = 4;
  c.model.mla = {.kv_latent = 48, .q_latent = 64, .nope_dim = 24, .rope_dim = 16, .v_dim = 32};
  c.model.moe = {.experts = 8, .chosen = 3, .ffn = 96};
  c.model.moe.shared = 1;
  c.model.moe.first_dense = 1;
  c.model.mtp.depth = 1;
}

// Every step is compared, and nothing falls.
void watch(RunConfig& c) {
  c.precision.watchdog.every = 1;
  c.precision.watchdog.limit = 0;
}

RunConfig config_of(const ScratchFolder& folder, const Case& c) {
  RunConfig config = small_config(folder);
  config.model.max_positions = 512;
  config.train.dtype = "bf16";
  config.train.sequence_length = 256;
  config.train.batch = 8;
  config.train.micro_batch = 4;
  config.train.steps = 2;
  config.train.evaluate_sequences = 0;
  config.precision.recipe = c.recipe;
  c.change(config);
  return config;
}

std::vector<Case> cases() {
  const std::vector<std::pair<std::string, Change>> models = {{"dense", set_dense},
                                                              {"sparse", set_sparse}};
  std::vector<Case> list;
  for (const auto& [model, set] : models) {
    for (const char* recipe : {"deepseek_v3", "per_tensor", "mxfp8", "block_gradients"}) {
      list.push_back({cat(model, "_", recipe), recipe, set});
      list.push_back({cat(model, "_", recipe, "_watched"), recipe, [set = set](auto& c) {
                        set(c);
                        watch(c);
                      }});
    }
    const std::vector<std::pair<std::string, Change>> choices = {
        {"exact", [](RunConfig& c) { c.precision.accumulator = "exact"; }},
        {"whole_copies",
         [](RunConfig& c) {
           c.precision.copy = c.precision.attention_output_copy = "full";
           c.precision.swiglu_inputs = "full";
         }},
        {"bf16_gradients", [](RunConfig& c) { c.precision.dgrad = c.precision.wgrad = false; }},
        {"bf16_ends",
         [](RunConfig& c) { c.precision.first_layers_bf16 = c.precision.last_layers_bf16 = 1; }},
        {"f32", [](RunConfig& c) { c.train.dtype = "f32"; }},
        {"f32_watched",
         [](RunConfig& c) {
           c.train.dtype = "f32";
           watch(c);
         }},
        {"bf16_gradients_watched",
         [](RunConfig& c) {
           c.precision.dgrad = c.precision.wgrad = false;
           watch(c);
         }},
        {"whole_copies_watched",
         [](RunConfig& c) {
           c.precision.copy = c.precision.attention_output_copy = "full";
           c.precision.swiglu_inputs = "full";
           watch(c);
         }},
    };
    for (const auto& [name, change] : choices) {
      list.push_back({cat(model, "_", name), "deepseek_v3", [set = set, change = change](auto& c) {
                        set(c);
                        change(c);
                      }});
    }
  }
  return list;
}

class Fp8ForecastTest : public testing::TestWithParam<Case> {};

// What a run says at its start against what the ledger saw by its end: enough, and not much more.
TEST_P(Fp8ForecastTest, IsThePeakAndAtMost5PercentMore) {
  const ScratchFolder folder;
  const RunResult run = train_small(config_of(folder, GetParam()));
  const double forecast = run.summary.at("ledger_forecast_bytes"),
               peak = run.summary.at("ledger_peak_bytes");
  EXPECT_GE(forecast, peak) << forecast - peak << " bytes above: " << run.steps.back();
  EXPECT_LE(forecast, 1.05 * peak);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Fp8ForecastTest, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

// The policies in which the codes themselves are made again, less closely.
TEST(Fp8Forecast, PoliciesAreWithin10Percent) {
  for (const char* policy : {"swiglu", "norms", "attention", "block"}) {
    for (const auto& set : {set_dense, set_sparse}) {
      for (const int64_t every : {0, 1}) {
        const ScratchFolder folder;
        RunConfig config = config_of(folder, {"", "deepseek_v3", set});
        config.train.recompute = policy;
        config.precision.watchdog = {.every = every, .limit = 0};
        const RunResult run = train_small(config);
        const double forecast = run.summary.at("ledger_forecast_bytes"),
                     peak = run.summary.at("ledger_peak_bytes");
        EXPECT_NEAR(forecast, peak, 0.1 * peak)
            << policy << " every " << every << (config.model.moe.on() ? " sparse" : " dense");
      }
    }
  }
}

// Only a comparison that the run reaches counts.
TEST(Fp8Forecast, CountsAComparisonThatIsStillToCome) {
  RunConfig config;
  set_dense(config);
  config.model.vocabulary = 512;
  config.precision.recipe = "deepseek_v3";
  config.train.steps = 10;
  auto bytes = [&](int64_t every, int64_t steps_done) {
    config.precision.watchdog.every = every;
    return forecast_memory(config, {.sequences = 2, .length = 64, .steps_done = steps_done})
        .total();
  };
  EXPECT_GT(bytes(4, 0), 1.1 * static_cast<double>(bytes(0, 0)));
  EXPECT_EQ(bytes(4, 7), bytes(4, 0));
  EXPECT_EQ(bytes(4, 8), bytes(0, 0));
  EXPECT_EQ(bytes(11, 0), bytes(0, 0));
}

// What has left FP8 keeps values, and has no codes.
TEST(Fp8Forecast, KnowsWhatHasFallenBack) {
  RunConfig config;
  set_dense(config);
  config.model.vocabulary = 512;
  config.train.dtype = "bf16";
  config.precision.recipe = "deepseek_v3";
  const Chunk all = whole_model(config.model);
  const Fp8ForecastInput narrow{.rows = 128, .chunk = all};
  Fp8ForecastInput fallen = narrow;
  fallen.fallen = {"layers.0.mlp.gate_up.weight", "layers.0.mlp.down.weight"};
  const Fp8Forecast a = forecast_fp8(config, narrow), b = forecast_fp8(config, fallen);
  EXPECT_GT(b.forward, a.forward + 128 * 2 * 352);
  EXPECT_GT(b.kept, a.kept + 128 * 2 * 352);
  const std::vector<ParamInfo> params = parameters_of(config.model, all);
  EXPECT_EQ(
      forecast_codes(config, params, 1, {}) - forecast_codes(config, params, 1, fallen.fallen),
      3 * 128 * 352 + 2 * 64);
}

// A byte an element and a scale a block, in buffers of whole cache lines; both directions where
// tiles are not square.
TEST(Fp8Forecast, CountsTheCodesOfWeights) {
  RunConfig config;
  set_dense(config);
  config.model.vocabulary = 512;
  auto codes = [&](const char* recipe) {
    config.precision.recipe = recipe;
    return forecast_codes(config, parameters_of(config.model, whole_model(config.model)), 1, {});
  };
  const int64_t d = 128, f = 352,
                qkv = config.model.heads * config.model.dim_of_head() +
                      2 * config.model.kv_heads * config.model.dim_of_head();
  const int64_t elements = 3 * (qkv * d + d * config.model.attention_width() + 3 * f * d);
  EXPECT_EQ(codes("per_tensor"), elements + 3 * 4 * 64);
  EXPECT_EQ(codes("mxfp8"), 2 * (elements + elements / 32 * 4));
  EXPECT_EQ(codes("deepseek_v3"), elements + 3 * 4 * 64);
}

// Two tensor ranks have half the rows each and the inputs of their halves of matrices of all rows.
TEST(Fp8Forecast, OfTensorRanks) {
  RunConfig config;
  set_dense(config);
  config.model.vocabulary = 512;
  config.train.dtype = "bf16";
  config.precision.recipe = "deepseek_v3";
  const Chunk all = whole_model(config.model);
  const Fp8Forecast one = forecast_fp8(config, {.rows = 128, .chunk = all});
  const Fp8Forecast two = forecast_fp8(config, {.rows = 64, .tensor = 2, .chunk = all});
  EXPECT_GT(2 * two.kept, one.kept);
  EXPECT_LT(two.kept, 0.65 * static_cast<double>(one.kept));
  EXPECT_LT(two.backward, 0.75 * static_cast<double>(one.backward));
}

TEST(Fp8Forecast, SavesBesideBf16AndGrowsWithTokens) {
  RunConfig config;
  config.model.vocabulary = 512;
  config.train.dtype = "bf16";
  const ForecastInput input{.sequences = 8, .length = 512};
  const int64_t plain = forecast_memory(config, input).activations;
  config.precision.recipe = "deepseek_v3";
  const int64_t narrow = forecast_memory(config, input).activations;
  EXPECT_LT(narrow, 0.85 * static_cast<double>(plain));
  EXPECT_GT(narrow, 0.5 * static_cast<double>(plain));
  const MemoryForecast f = forecast_memory(config, input);
  EXPECT_EQ(f.total(), f.activations + f.workspace + f.weight_codes);
}

}  // namespace
}  // namespace shoestring
