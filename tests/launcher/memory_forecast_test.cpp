#include "launcher/memory_forecast.h"

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

class Forecast : public testing::TestWithParam<Case> {};

// What a run says at its start against what the ledger saw by its end.
TEST_P(Forecast, IsWithin15PercentOfThePeak) {
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
  EXPECT_NEAR(forecast, peak, 0.15 * peak);
}

INSTANTIATE_TEST_SUITE_P(
    Configs, Forecast,
    testing::Values(Case{"f32", [](RunConfig&) {}},
                    Case{"bf16", [](RunConfig& c) { c.train.dtype = "bf16"; }},
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
                    Case{"muon_qk_norm",
                         [](RunConfig& c) {
                           c.optim.optimizer = "muon";
                           c.model.qk_norm = true;
                         }}),
    [](const auto& info) { return std::string(info.param.name); });

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

}  // namespace
}  // namespace shoestring
