#include "launcher/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

struct Printed {
  RunResult run;
  std::string text;
};

Printed train_printed(const RunConfig& config) {
  testing::internal::CaptureStderr();
  RunResult run = train_small(config);
  return {std::move(run), testing::internal::GetCapturedStderr()};
}

TEST(Report, EveryStepHasItsFigures) {
  const ScratchFolder folder;
  const RunResult run = train_small(text_config(folder));
  for (const nlohmann::json& step : run.steps) {
    for (const char* key :
         {"step", "loss", "tokens", "gradient_norm", "lr", "accuracy", "tokens_per_second", "mfu",
          "seconds", "data_seconds", "compute_seconds", "exposed_seconds", "update_seconds",
          "skipped", "bytes/activations", "bytes/moments", "cost", "cost_at_end"}) {
      EXPECT_TRUE(step.contains(key)) << key;
    }
  }
  EXPECT_EQ(run.steps[2].at("tokens"), 3 * 4 * 32);
  bool events = false;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "text/tensorboard")) {
    events |= std::filesystem::file_size(entry.path()) > 1000;
  }
  EXPECT_TRUE(events);
}

TEST(Report, TheSummaryComparesWithGuesses) {
  const ScratchFolder folder;
  const nlohmann::json s = train_small(text_config(folder)).summary;
  EXPECT_DOUBLE_EQ(s.at("uniform_loss"), std::log(512.0));
  EXPECT_LT(s.at("unigram_loss"), s.at("uniform_loss"));
  EXPECT_GT(s.at("unigram_loss"), 3.0);
  EXPECT_NEAR(s.at("validation_loss"), std::log(512.0), 0.3);  // three steps teach little
  // Nats a token over bytes a token.
  EXPECT_NEAR(s.at("bits_per_byte"), s.at("validation_loss").get<double>() / std::log(2.0) / 2.29,
              0.5);
  for (const char* key : {"tokens_per_second", "flop_per_second", "peak_bytes", "ledger_peak_bytes",
                          "ledger_forecast_bytes", "seconds", "checkpoint_stall_seconds"}) {
    EXPECT_GT(s.at(key), 0) << key;
  }
}

TEST(Report, WhatIsNotKnownIsNull) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "no_tokenizer");
  nlohmann::json s = train_small(config).summary;
  EXPECT_TRUE(s.at("bits_per_byte").is_null());
  EXPECT_GT(s.at("validation_loss"), 0);
  EXPECT_DOUBLE_EQ(s.at("uniform_loss"), std::log(200.0));
  EXPECT_LT(s.at("unigram_loss"), std::log(200.0) + 0.1);
  config = small_config(folder, "nothing_held_out");
  config.data.held_out = 0;
  s = train_small(config).summary;
  EXPECT_TRUE(s.at("validation_loss").is_null());
  EXPECT_TRUE(s.at("unigram_loss").is_null());
}

TEST(Report, MoneyIsSpokenOfWhenItHasAPrice) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "free");
  config.train.log_every = 1;
  const Printed free = train_printed(config);
  EXPECT_EQ(free.text.find("USD"), std::string::npos) << free.text;
  EXPECT_EQ(free.run.summary.at("cost"), 0);
  config.run.directory = folder / "paid";
  config.cost.price_per_hour = 3600000;
  config.cost.chips = 2;
  const Printed paid = train_printed(config);
  EXPECT_NE(paid.text.find(" of "), std::string::npos);
  EXPECT_NE(paid.text.find(" USD"), std::string::npos) << paid.text;
  const double seconds = paid.run.summary.at("seconds"), cost = paid.run.summary.at("cost");
  EXPECT_NEAR(cost, 2000 * seconds, 1e-6 * cost);
  const nlohmann::json& first = paid.run.steps[0];
  EXPECT_GT(first.at("cost_at_end"), first.at("cost"));
}

TEST(Report, SaysWhatItWillDoAndWhatItDid) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.log_every = 2;
  config.train.evaluate_every = 4;
  const std::string text = train_printed(config).text;
  for (const char* part :
       {"parameters, f32, 2 layers", "memory forecast: ", "training: 8 steps", "step 2/8  loss ",
        "step 8/8", "left ", "validation after step 4:", "memory peak: "}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in:\n" << text;
  }
  EXPECT_EQ(text.find("step 3/8"), std::string::npos);
}

TEST(Report, MeasuresThePeakForMfu) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  config.train.measure_peak = true;
  const nlohmann::json s = train_small(config).summary;
  EXPECT_GT(s.at("peak_flop_per_second"), 1e8);
  EXPECT_GT(s.at("mfu"), 0);
  EXPECT_LT(s.at("mfu"), 1.5);
  EXPECT_LT(s.at("ledger_peak_bytes"), 8 << 20);  // the measurement is not the run's
}

}  // namespace
}  // namespace shoestring
