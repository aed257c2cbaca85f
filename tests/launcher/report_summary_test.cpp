#include <gtest/gtest.h>

#include "launcher/report.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

nlohmann::json summary_of(const RunConfig& config) {
  return nlohmann::json::parse(read_file(config.run.directory + "/summary.json"));
}

TEST(ReportSummary, ARunThatIsStartedAgainWhenDoneKeepsItsFigures) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.train.measure_peak = true;
  config.train.sample_every = 3;
  config.train.sample_prompt = "Sir Walter";
  config.train.sample_tokens = 5;
  train_small(config);
  nlohmann::json first = summary_of(config);
  first["xz_bits_per_byte"] = 2.5;  // what a script added
  first["validation_loss"] = 99;    // what the second start finds out anew
  write_file(config.run.directory + "/summary.json", first.dump(2));
  const nlohmann::json again = train_small(config).summary;
  for (const char* key :
       {"tokens_per_second", "flop_per_second", "peak_flop_per_second", "mfu", "peak_bytes",
        "ledger_peak_bytes", "ledger_forecast_bytes", "checkpoint_saves", "checkpoint_bytes",
        "checkpoint_stall_seconds", "training_seconds_here", "sample", "xz_bits_per_byte",
        "unigram_loss", "bits_per_byte"}) {
    EXPECT_EQ(again.at(key), first.at(key)) << key;
    EXPECT_NE(again.at(key), 0) << key;
  }
  const nlohmann::json next = {
      cat("shoestring generate --model ", config.run.directory, " --prompt TEXT"),
      cat("shoestring eval --model ", config.run.directory, " FILE")};
  EXPECT_EQ(first.at("next"), next);
  EXPECT_LT(again.at("validation_loss"), 10);
  EXPECT_GE(again.at("seconds"), first.at("seconds"));
}

// Not those of the rank that writes it.
TEST(ReportSummary, CountsTheParametersOfTheWholeModel) {
  const ScratchFolder folder;
  RunConfig config = sparse_text_config(folder, "one");
  config.train.steps = 1;
  const nlohmann::json one = train_small(config).summary;
  config.run.directory = folder / "several";
  config.mesh.tp = 2, config.mesh.pp = 2;
  const nlohmann::json several = train_small(config).summary;
  EXPECT_EQ(several.at("parameters"), one.at("parameters"));
  EXPECT_GT(one.at("parameters"), 50'000);
}

TEST(ReportSummary, SpeedsAreUnknownWhenNoStartLeftThem) {
  const ScratchFolder folder;
  const RunConfig config = small_config(folder);
  train_small(config);
  std::filesystem::remove(config.run.directory + "/metrics.jsonl");
  for (const char* text : {"", "{torn", "[1, 2]"}) {
    write_file(config.run.directory + "/summary.json", text);
    const nlohmann::json again = train_small(config).summary;
    EXPECT_TRUE(again.at("tokens_per_second").is_null());
    EXPECT_TRUE(again.at("mfu").is_null());
    EXPECT_GT(again.at("validation_loss"), 0);
  }
}

// As after a stop in the final evaluation: all steps are done and nothing was summed up.
TEST(ReportSummary, TheLastLineStandsInForASummaryThatWasNotWritten) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.run.name = "a small one";
  config.train.measure_peak = true;
  const RunResult first = train_small(config);
  EXPECT_EQ(first.summary.at("name"), "a small one");
  nlohmann::json shorter = first.summary;  // of fewer steps: it does not count
  shorter["steps"] = 3;
  for (const std::string& text : {std::string(), shorter.dump()}) {
    write_file(config.run.directory + "/summary.json", text);
    const nlohmann::json s = train_small(config).summary;
    const nlohmann::json& line = first.steps.back();
    EXPECT_EQ(s.at("tokens_per_second"), line.at("tokens_per_second"));
    EXPECT_EQ(s.at("mfu"), line.at("mfu"));
    const double peak = s.at("peak_flop_per_second"), share = s.at("mfu");
    EXPECT_GT(peak, 1e8);
    EXPECT_DOUBLE_EQ(s.at("flop_per_second"), peak * share);
  }
}

}  // namespace
}  // namespace shoestring
