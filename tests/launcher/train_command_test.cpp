#include "launcher/train_command.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "launcher/signals.h"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(TrainCommand, ReadsRangesOfSteps) {
  const TraceRange range = parse_trace_range("3:15");
  EXPECT_EQ(range.first, 3);
  EXPECT_EQ(range.last, 15);
  for (const char* text : {"", "3", "3:", ":3", "5:3", "0:2", "-1:2", "1:2x", "a:b", "1:2:3"}) {
    expect_error(ExitCode::usage, {"--trace-steps", text}, [&] { parse_trace_range(text); });
  }
}

TEST(TrainCommand, ATraceBeyondTheLastStepIsRefused) {
  const ScratchFolder folder;
  const RunConfig config = small_config(folder);  // 8 steps
  for (const TraceRange& range : {TraceRange{500, 501}, TraceRange{7, 9}}) {
    expect_error(ExitCode::usage, {"--trace-steps", "train.steps = 8"},
                 [&] { train(config, range); });
  }
  EXPECT_FALSE(std::filesystem::exists(config.run.directory));
  EXPECT_EQ(train(config, {8, 8}), ExitCode::done);
}

// Afterwards every command that is given the path would read the old weights.
TEST(TrainCommand, ARunDoesNotLiveInAModelsFolder) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.run.directory = copy_with_tokenizer("qwen3", folder);
  config.train.init_from = config.run.directory;
  expect_error(ExitCode::usage,
               {"run.directory = " + config.run.directory, "a Hugging Face folder", "config.json",
                "train.init_from"},
               [&] { train(config, {}); });
  EXPECT_FALSE(std::filesystem::exists(config.run.directory + "/lock"));
  config = small_config(folder);
  config.train.steps = 1;
  train_small(config);
  config.run.directory += "/checkpoints/step_00000001";
  expect_error(ExitCode::usage, {"run.directory", "one checkpoint"}, [&] { train(config, {}); });
}

TEST(TrainCommand, TrainsFromAFileWithOverrides) {
  const ScratchFolder folder;
  write_file(folder / "run.toml", dump_config(small_config(folder)));
  EXPECT_EQ(run_train({.config = folder / "run.toml",
                       .overrides = {"train.steps=2", "model.layers=1"},
                       .trace = {}}),
            ExitCode::done);
  const RunResult run = result_of_run(folder / "run");
  EXPECT_EQ(run.steps.size(), 2u);
  EXPECT_FALSE(run.tensors.contains("model/layers.1.mlp.down.weight"));
  EXPECT_NE(read_file(folder / "run/config.toml").find("layers = 1"), std::string::npos);
}

TEST(TrainCommand, SaysInWhichFileTheDataIsMissing) {
  const ScratchFolder folder;
  const auto refused = [&](const std::string& text, const std::string& position) {
    write_file(folder / "run.toml", text);
    expect_error(ExitCode::usage, {folder / "run.toml" + position + ": data.sources: is empty"},
                 [&] { run_train({.config = folder / "run.toml", .overrides = {}, .trace = {}}); });
  };
  refused("[train]\nsteps = 2\n\n[data]\nheld_out = 0.1\n", ":4:1");
  refused("[train]\nsteps = 2\n", "");  // nothing to point at
}

// As they are but for their length, and for where they are started from.
TEST(TrainCommand, TheLookAlikesTrain) {
  const std::string tree = SHOESTRING_SOURCE_DIR "/";
  for (const char* name : {"", "-deepseek-v2", "-deepseek-v3", "-mixtral", "-qwen3-moe"}) {
    const ScratchFolder folder;
    const std::string run = folder / "run";
    EXPECT_EQ(run_train({.config = tree + "configs/runs/mini" + name + ".toml",
                         .overrides = {"run.directory=" + run, "train.steps=2", "train.batch=4",
                                       "train.sequence_length=32", "train.evaluate_sequences=0",
                                       "tokenizer=" + tree + "tests/data/tiny/tokenizer.json",
                                       "data.sources=[{path='" + tree +
                                           "tests/data/tiny/persuasion.h5'}]"},
                         .trace = {}}),
              ExitCode::done)
        << name;
    EXPECT_EQ(result_of_run(run).steps.size(), 2u) << name;
  }
}

TEST(TrainCommand, AMissingConfigIsTheOnlyComplaint) {
  try {
    run_train({.config = "/gone/run.toml", .overrides = {}, .trace = {}});
    ADD_FAILURE() << "trained without a config";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cannot read '/gone/run.toml': No such file or directory");
  }
}

TEST(TrainCommand, AStopBeforeTheFirstStepIsAPreemption) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "stopped");
  const pid_t child = fork();  // the signal ends the process
  if (child == 0) {
    catch_stop_signals();
    std::raise(SIGTERM);
    _exit(static_cast<int>(train(config, {})));
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 75);
  EXPECT_FALSE(std::filesystem::exists(config.run.directory + "/summary.json"));
  catch_stop_signals();
  const RunResult stopped = train_small(config);
  config.run.directory = folder / "unbroken";
  expect_same_run(train_small(config), stopped);
}

// Thousands of threads would each find the mistake.
TEST(TrainCommand, AMistakeIsFoundBeforeRanksAreStarted) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.data_parallel = 3000;
  config.data.sources[0].path = folder / "missing.h5";
  const auto start = std::chrono::steady_clock::now();
  const std::string text = expect_error(ExitCode::data, {"missing.h5"}, [&] { train(config, {}); });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(text.find("rank "), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
