#include "launcher/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/peak.h"
#include "launcher/saving.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

struct Printed {
  RunResult run;
  std::string text;
};

Printed train_printed(const RunConfig& config) {
  testing::internal::CaptureStdout();
  RunResult run = train_small(config);
  return {std::move(run), testing::internal::GetCapturedStdout()};
}

TEST(Report, EveryStepHasItsFigures) {
  const ScratchFolder folder;
  const RunResult run = train_small(text_config(folder));
  for (const nlohmann::json& step : run.steps) {
    for (const char* key : {"step",
                            "loss",
                            "tokens",
                            "gradient_norm",
                            "lr",
                            "accuracy",
                            "tokens_per_second",
                            "mfu",
                            "seconds",
                            "data_seconds",
                            "compute_seconds",
                            "reduction_seconds",
                            "exposed_seconds",
                            "update_seconds",
                            "skipped",
                            "bytes/reserved",
                            "bytes/activations",
                            "bytes/moments",
                            "cost",
                            "cost_at_end"}) {
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

TEST(Report, SaysOnceWhichLinesAreMissing) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 5;
  const auto train_on = [&](int64_t steps) {
    config.train.steps = steps;
    testing::internal::CaptureStderr();
    train_small(config);
    return testing::internal::GetCapturedStderr();
  };
  train_on(5);
  EXPECT_EQ(train_on(6).find("lacks the lines"), std::string::npos);
  const std::string path = RunDirectory(config.run.directory).metrics();
  std::string text = read_file(path);
  const size_t third = text.find("{\"step\":3,"), fourth = text.find("{\"step\":4,");
  write_file(path, text.erase(third, fourth - third));
  const std::string said = train_on(7);
  const size_t at = said.find(path + " lacks the lines of steps 3 of the 6 done");
  EXPECT_NE(at, std::string::npos) << said;
  EXPECT_EQ(said.find("lacks the lines", at + path.size() + 20), std::string::npos) << said;
}

// Who writes standard output to a file or into a pipe has all lines there.
TEST(Report, LinesGoToStandardOutputAndNothingElseDoes) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.log_every = 4;
  write_file(folder / "run.toml", dump_config(config));
  const BinaryResult run = run_binary({"train", folder / "run.toml"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.err, "");
  for (const char* part : {"model: ", "step 4/8", "step 8/8", "validation loss", "next "}) {
    EXPECT_NE(run.out.find(part), std::string::npos) << part << " is not in:\n" << run.out;
  }
}

TEST(Report, MfuAndTokensPerSecondAreOfTheSameTime) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.measure_peak = true;
  config.data.cross_document_attention = true;  // every step is the same work
  const RunResult run = train_small(config);
  const auto ratio = [](const nlohmann::json& j) {
    return j.at("mfu").get<double>() / j.at("tokens_per_second").get<double>();
  };
  for (const nlohmann::json& step : run.steps) {
    EXPECT_NEAR(ratio(step), ratio(run.summary), 1e-9 * ratio(run.summary)) << step;
  }
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

// What is paid for is the whole time, and what was paid before a resume stays paid.
TEST(Report, MoneyIsSpentOnEvaluationsAndStartsToo) {
  const ScratchFolder folder;
  make_small_store(folder / "first.h5", 1, 3000);
  make_small_store(folder / "second.h5", 2);
  RunConfig config = small_config(folder);
  config.train.steps = 2;
  config.train.evaluate_every = 1;
  config.train.evaluate_sequences = 2000;
  config.data.held_out = 0.5;
  config.checkpoint.every = 1;
  config.cost.price_per_hour = 3600;  // one a second
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const nlohmann::json first = train_small(config).summary;
  const double after_first = elapsed();
  const double seconds = first.at("seconds");
  EXPECT_LT(first.at("training_seconds_here"), 0.5 * seconds);  // most of it was evaluation
  EXPECT_GT(seconds, 0.25 * after_first);  // a busy machine may stop us outside of the run
  EXPECT_LE(seconds, after_first);
  EXPECT_DOUBLE_EQ(first.at("cost"), seconds);
  // A crash behind the checkpoint of step 1: what came after was paid, too.
  std::filesystem::remove_all(config.run.directory + "/checkpoints/step_00000002");
  const RunResult resumed = train_small(config);
  const double wall = resumed.summary.at("seconds");
  EXPECT_GT(wall, seconds);
  EXPECT_LE(wall, elapsed());
  EXPECT_LT(resumed.steps[0].at("cost_at_end"), 3 * elapsed());
  EXPECT_GT(resumed.steps[1].at("wall_seconds"), seconds);
}

// Attention's part of the arithmetic follows the documents: a config's estimate would be above it.
TEST(Report, UsefulArithmeticFollowsTheDocuments) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const auto flop_of = [](const nlohmann::json& s) {
    return s.at("flop_per_second").get<double>() * s.at("training_seconds_here").get<double>();
  };
  const double packed = flop_of(train_small(config).summary);
  config.run.directory = folder / "two";
  config.parallel.data_parallel = 2;
  EXPECT_NEAR(flop_of(train_small(config).summary), packed, 1e-6 * packed);
  config.run.directory = folder / "across";
  config.data.cross_document_attention = true;
  const double across = flop_of(train_small(config).summary);
  ModelConfig model = config.model;
  model.vocabulary = 256;
  const double tokens = 8 * 4 * 32, half_a_key = 12.0 * 2 * 32 / 2;
  EXPECT_NEAR(across, tokens * (training_flop_per_token(model, 32) + half_a_key), 1e-6 * across);
  EXPECT_LT(packed, across);
  EXPECT_GT(packed, tokens * training_flop_per_token(model, 0));
}

// What a start after a fallback makes again stands in the line of its step, once.
TEST(Report, WhatWasOwedStandsInItsLineAfterAFallback) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 4;
  config.checkpoint.every = 2;
  train_small(config);
  const std::string checkpoints = RunDirectory(config.run.directory).checkpoints();
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    restore(rank, Checkpoint::open(checkpoints + "/step_00000002"));
    rank.owed.evaluation = true;  // as if a signal had cut it short
    std::filesystem::remove_all(checkpoints);
    CheckpointWriter writer(checkpoint_options(rank));
    writer.save(content_of(rank));
    writer.finish();
  });
  const RunResult again = train_small(config);
  ASSERT_EQ(again.steps.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(again.steps[i].at("step"), i + 1);
    EXPECT_EQ(again.steps[i].contains("validation_loss"), i % 2 == 1) << again.steps[i];
  }
}

// More ranks than cores do not make the machine faster.
TEST(Report, ThePeakIsThatOfTheCoresInUse) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  config.train.measure_peak = true;
  Device one(DeviceKind::cpu, 0, 1);
  const double core = measured_peak_flops(one, Dtype::f32);
  double peak = 0;
  run_ranks(4, [&](Communicator& world) {
    RunTrace trace({}, world.rank());
    RankState rank(config, world, 1);
    Trainer trainer(rank, trace, {.threads = 1, .cores = 1, .first = world.rank() == 0});
    EXPECT_TRUE(trainer.run());
    if (world.rank() == 0) {
      peak = result_of_run(config.run.directory).summary.at("peak_flop_per_second");
    }
  });
  EXPECT_LT(peak, 2 * core);
  EXPECT_GT(peak, 0.3 * core);
}

}  // namespace
}  // namespace shoestring
