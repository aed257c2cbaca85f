#include <gtest/gtest.h>

#include "launcher/report.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig watched_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.dtype = "bf16";
  config.train.steps = 4;
  config.precision.recipe = "deepseek_v3";
  config.precision.watchdog = {.every = 2, .limit = 1e-6};  // every matrix fails
  return config;
}

struct Printed {
  RunResult run;
  std::string text;
};
Printed train_printed(const RunConfig& config) {
  testing::internal::CaptureStdout();
  RunResult run = train_small(config);
  return {std::move(run), testing::internal::GetCapturedStdout()};
}

TEST(ReportForecast, SmallSumsHaveTwoDigits) {
  EXPECT_EQ(text_of_money(0), "0.0000");
  EXPECT_EQ(text_of_money(12.34), "12.3400");
  EXPECT_EQ(text_of_money(0.001), "0.0010");
  EXPECT_EQ(text_of_money(5.93e-6), "5.9e-06");
}

TEST(ReportForecast, SaysWhatFellBackAndWhatItCosts) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.cost.price_per_hour = 1e-3;
  const Printed first = train_printed(config);
  const std::string lead = "step 2: layers.0.attention.qkv.weight falls back to bf16";
  EXPECT_NE(first.text.find(lead), std::string::npos) << first.text;
  EXPECT_NE(first.text.find("e-"), std::string::npos) << first.text;
  EXPECT_EQ(first.text.find(": 0.0000 USD"), std::string::npos) << first.text;
  EXPECT_EQ(first.text.find("the watchdog has let"), std::string::npos) << first.text;
  const nlohmann::json& s = first.run.summary;
  EXPECT_EQ(s.at("fp8_matrices"), 8);
  ASSERT_EQ(s.at("fp8_fallen").size(), 8u);
  EXPECT_EQ(s.at("fp8_fallen")[0], "layers.0.attention.qkv.weight");
  config.train.steps = 5;
  const Printed resumed = train_printed(config);
  EXPECT_NE(resumed.text.find("the watchdog has let 8 of 8 matrices fall back to bf16: "
                              "layers.0.attention.qkv.weight, layers.0.attention.output.weight, "),
            std::string::npos)
      << resumed.text;
  EXPECT_EQ(resumed.run.summary.at("fp8_fallen"), s.at("fp8_fallen"));
}

// One comparison fails by less than three decimals show.
TEST(ReportForecast, TheErrorIsSeenToBeAboveTheLimit) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.precision.watchdog.every = 4;
  config.precision.watchdog.limit = 0;
  const RunResult reported = train_small(config);
  double worst = 0;
  for (const auto& [key, value] : reported.steps[3].items()) {
    if (key.starts_with("fp8/error/")) worst = std::max(worst, value.get<double>());
  }
  ASSERT_GT(worst, 0);
  config.run.directory = folder / "again";
  config.precision.watchdog.limit = worst * (1 - 1e-6);
  const std::string text = train_printed(config).text;
  const std::string key = "in FP8 is ";
  const size_t at = text.find(key);
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_GT(std::stod(text.substr(at + key.size())), config.precision.watchdog.limit) << text;
}

// A fallback raises the forecast where values take more than codes did.
TEST(ReportForecast, HoldsAfterAllFellBack) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.model.hidden = 64;
  config.model.ffn = 512;
  config.train.batch = config.train.micro_batch = 16;
  config.precision.watchdog.every = 1;
  const Printed fell = train_printed(config);
  const double forecast = fell.run.summary.at("ledger_forecast_bytes"),
               peak = fell.run.summary.at("ledger_peak_bytes");
  EXPECT_GE(forecast, peak);
  EXPECT_LE(forecast, 1.1 * peak);
}

TEST(ReportForecast, TellsTheCodesOfWeightsApart) {
  const ScratchFolder folder;
  RunConfig config = watched_config(folder);
  config.precision.watchdog = {};
  const Printed narrow = train_printed(config);
  EXPECT_NE(narrow.text.find(" of which FP8 codes "), std::string::npos) << narrow.text;
  const int64_t elements = 2 * (32 * 64 + 32 * 32 + 3 * 64 * 32);
  const int64_t codes = narrow.run.summary.at("fp8_weight_code_bytes");
  EXPECT_GE(codes, elements);
  EXPECT_LE(codes, elements + 8 * 128);
  EXPECT_EQ(narrow.run.steps.back().at("bytes/fp8_weight_codes"), codes);
  config.precision = {};
  config.run.directory = folder / "plain";
  const Printed plain = train_printed(config);
  EXPECT_EQ(plain.text.find("FP8"), std::string::npos) << plain.text;
  EXPECT_FALSE(plain.run.summary.contains("fp8_fallen"));
}

}  // namespace
}  // namespace shoestring
