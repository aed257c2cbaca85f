#include "launcher/same_run.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/text.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

using Change = std::function<void(RunConfig&)>;

class SameRun : public testing::Test {
 protected:
  SameRun() : config_(small_config(folder_)) {
    config_.train.steps = 2;
    config_.data.sources.push_back(
        {.name = "second", .path = folder_ / "second.h5", .weight = 1, .held_out = {}});
  }
  // A start with this change is refused, names the parts and leaves every file as it was.
  void refused(const std::vector<std::string>& parts, const Change& change) {
    RunConfig other = config_;
    other.train.steps = 4;
    change(other);
    const std::string before = read_file(config_.run.directory + "/config.toml");
    const RunResult good = result_of_run(config_.run.directory);
    const std::string message = expect_error(ExitCode::usage, parts, [&] { train(other, {}); });
    EXPECT_NE(message.find("run.directory"), std::string::npos) << message;
    EXPECT_EQ(read_file(config_.run.directory + "/config.toml"), before);
    const RunResult after = result_of_run(config_.run.directory);
    EXPECT_EQ(after.summary, good.summary);
    EXPECT_EQ(after.steps, good.steps);
  }
  // Goes on and returns what is printed.
  std::string goes_on(const Change& change) {
    RunConfig other = config_;
    other.train.steps = 4;
    change(other);
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    EXPECT_EQ(train_small(other).steps.size(), 4u);
    return testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  }

  const ScratchFolder folder_;
  RunConfig config_;
};

TEST_F(SameRun, RefusesToReadOtherwiseWhatWasRead) {
  train_small(config_);
  refused({"train.sequence_length", "was 32 and is 16", "train.init_from"},
          [](RunConfig& c) { c.train.sequence_length = 16; });
  refused({"data.held_out was 0.1 and is 0.3"}, [](RunConfig& c) { c.data.held_out = 0.3; });
  refused({"data.sources.1.held_out was 0.1 and is 0.2"},
          [](RunConfig& c) { c.data.sources[1].held_out = 0.2; });
  refused({"data.cross_document_attention was false and is true"},
          [](RunConfig& c) { c.data.cross_document_attention = true; });
  refused({"data.sources.0.name was \"first\" and is \"other\""},
          [](RunConfig& c) { c.data.sources[0].name = "other"; });
  refused({"data.sources", "the shares of step 1 was [0.5, 0.5] and is [0.75, 0.25]"},
          [](RunConfig& c) { c.data.sources[0].weight = 3; });
  refused({"data.sources.1 (second) is gone"}, [](RunConfig& c) { c.data.sources.pop_back(); });
  refused({"data.sources.0.path was", "second.h5, which holds other text"},
          [&](RunConfig& c) { c.data.sources[0].path = folder_ / "second.h5"; });
}

TEST_F(SameRun, RefusesAStoreThatWasPackedAnew) {
  train_small(config_);
  std::filesystem::remove(folder_ / "second.h5");
  make_small_store(folder_ / "second.h5", 5);
  refused({"data.sources.1.path: ", "second.h5 holds other text than it did"}, [](RunConfig&) {});
}

TEST_F(SameRun, RefusesFewerStepsThanWereDone) {
  train_small(config_);
  refused({"train.steps = 1", "has done 2 steps"}, [](RunConfig& c) { c.train.steps = 1; });
  EXPECT_EQ(train_small(config_).steps.size(), 2u);  // as many as were done: nothing to do
}

TEST_F(SameRun, WhatIsToComeMayChange) {
  train_small(config_);
  std::filesystem::rename(folder_ / "second.h5", folder_ / "moved.h5");
  make_small_store(folder_ / "third.h5", 3);
  const std::string text = goes_on([&](RunConfig& c) {
    c.data.sources[1].path = folder_ / "moved.h5";
    // A source of a later stage only.
    c.data.sources.push_back(
        {.name = "third", .path = folder_ / "third.h5", .weight = 0, .held_out = {}});
    StageSection first, later;
    later.from_tokens = 2 * 4 * 32;
    later.weights = {1, 1, 2};
    later.batch = 2;
    later.sequence_length = 16;
    c.stages = {first, later};
    c.train.evaluate_every = 1;
  });
  EXPECT_EQ(text.find("warning"), std::string::npos) << text;
}

TEST_F(SameRun, TellsEachChangedKey) {
  train_small(config_);
  const std::string text = goes_on([](RunConfig& c) { c.optim.lr = 0.25; });
  EXPECT_NE(text.find("changed after step 2: optim.lr: 0.005 -> 0.25\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("changed after step 2: train.steps: 2 -> 4\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("warning"), std::string::npos) << text;
}

// What another preset fills in is one line, so that the key that was typed is seen.
TEST_F(SameRun, TellsOfAnotherRecipeInAFewLines) {
  config_.train.dtype = "bf16";
  config_.precision.recipe = "deepseek_v3";
  train_small(config_);
  for (const char* recipe : {"per_tensor", "bf16"}) {
    const ScratchFolder copy;
    const std::string was = config_.run.directory;
    std::filesystem::copy(was, copy / "run", std::filesystem::copy_options::recursive);
    const std::string text = goes_on([&](RunConfig& c) {
      c.run.directory = copy / "run";
      c.precision.recipe = recipe;
    });
    EXPECT_NE(text.find(cat("changed after step 2: precision.recipe: \"deepseek_v3\" -> \"", recipe,
                            "\"\n")),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("changed with precision.recipe: "), std::string::npos) << text;
    EXPECT_EQ(text.find("precision.activation"), std::string::npos) << text;
    EXPECT_EQ(text.find("optim.moments"), std::string::npos) << text;
  }
}

TEST_F(SameRun, TellsTenLinesOfChangesAtMost) {
  train_small(config_);
  const std::string text = goes_on([](RunConfig& c) {
    c.optim.lr = 0.25;
    c.optim.clip = 3;
    c.cost = {.price_per_hour = 2, .currency = "EUR", .chips = 3};
    c.checkpoint.keep = 3;
    c.checkpoint.deadline = 5;
    c.train.evaluate_sequences = 3;
    c.train.sample_tokens = 3;
    c.train.sample_temperature = 0.5;
    c.train.log_every = 50;
    c.parallel.bucket_mb = 3;
  });
  size_t lines = 0;
  for (size_t at = text.find("changed"); at != std::string::npos; at = text.find("changed", at + 1))
    ++lines;
  EXPECT_EQ(lines, 10u) << text;
  EXPECT_NE(text.find("changed: 4 more keys"), std::string::npos) << text;
}

TEST_F(SameRun, WarnsOfAScheduleThatFollowsTheSteps) {
  config_.optim.schedule.total = 0;
  train_small(config_);
  const std::string text = goes_on([](RunConfig&) {});
  EXPECT_NE(text.find("warning: optim.schedule.total = 0 follows train.steps"), std::string::npos)
      << text;
  EXPECT_NE(text.find("set optim.schedule.total = 256"), std::string::npos) << text;
}

TEST_F(SameRun, WarnsOfAnotherScheduleOverTheStepsDone) {
  train_small(config_);
  EXPECT_NE(goes_on([](RunConfig& c) {
              c.optim.schedule.total = 8000;
            }).find("schedule (optim.schedule, stages) would have been another in the 2 steps"),
            std::string::npos);
}

TEST_F(SameRun, AConstantRateFollowsNothing) {
  config_.optim.schedule.total = 0;
  config_.optim.schedule.kind = "constant";
  train_small(config_);
  EXPECT_EQ(goes_on([](RunConfig&) {}).find("warning"), std::string::npos);
}

TEST_F(SameRun, WarnsOfLongerSequencesToCome) {
  train_small(config_);
  const std::string text = goes_on([](RunConfig& c) {
    StageSection first, later;
    later.from_tokens = 2 * 4 * 32;
    later.sequence_length = 64;
    c.stages = {first, later};
  });
  EXPECT_NE(text.find("warning: the longest sequence of the run"), std::string::npos) << text;
  EXPECT_NE(text.find("was 32 and is 64 tokens"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
