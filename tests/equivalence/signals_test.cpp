// Runs of the binary that are killed or asked to stop, and then started again, against unbroken
// ones.

#include <gtest/gtest.h>

#include <csignal>
#include <random>
#include <thread>

#include "tests/launcher/training_fixture.h"
#include "tests/support/child_process.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

struct Program {
  std::string config, output;
  std::vector<std::string> words() const { return {binary_path(), "train", config}; }
  ChildProcess start(long largest_file_bytes = 0) const {
    return ChildProcess(words(), {.output = output, .largest_file_bytes = largest_file_bytes});
  }
  std::string printed() const { return read_file(output); }
};

Program write_config(const ScratchFolder& folder, const RunConfig& config) {
  const std::string name = std::filesystem::path(config.run.directory).filename().string();
  write_file(folder / (name + ".toml"), dump_config(config));
  return {.config = folder / (name + ".toml"), .output = folder / (name + ".log")};
}

size_t lines_of(const std::string& path) {
  const std::string text = read_file(path);
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

// Two ranks with sharded bf16 state that round stochastically: whatever a resume could lose.
RunConfig config_of(const ScratchFolder& folder, const std::string& run) {
  RunConfig config = small_config(folder, run);
  config.train.steps = 60;
  config.train.dtype = "bf16";
  config.optim.moments = "bf16";
  config.optim.stochastic_rounding = true;
  config.optim.ema_decay = 0.9;
  config.parallel.data_parallel = 2;
  config.parallel.zero_stage = 1;
  config.checkpoint.every = 5;
  return config;
}

TEST(Signals, KilledAtRandomMomentsARunEndsAsIfUnbroken) {
  const ScratchFolder folder;
  const RunConfig unbroken = config_of(folder, "unbroken"), broken = config_of(folder, "broken");
  const std::string metrics = RunDirectory(broken.run.directory).metrics();
  const Clock::time_point begin = Clock::now();
  const Program whole = write_config(folder, unbroken);
  ASSERT_EQ(whole.start().wait(), 0) << whole.printed();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();

  const Program program = write_config(folder, broken);
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(cat("seed ", seed));
  std::mt19937 random(seed);
  int kills = 0, code = -1;
  for (double longest = seconds; code != 0; longest *= 1.25) {  // ends when a run gets through
    ASSERT_LT(kills, 40) << program.printed();
    ChildProcess child = program.start();
    if (kills == 0) {  // whatever the machine's load: in the middle, with a checkpoint or two
      ASSERT_TRUE(child.wait_until([&] { return lines_of(metrics) >= 12; })) << program.printed();
    } else {
      const double delay = std::uniform_real_distribution<double>(0.2, 1.0)(random) * longest;
      std::this_thread::sleep_for(std::chrono::duration<double>(delay));
    }
    child.signal(SIGKILL);
    code = child.wait();
    if (code == 128 + SIGKILL) ++kills;
    ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << program.printed();
  }
  EXPECT_GE(kills, 1);
  expect_same_run(result_of_run(unbroken.run.directory), result_of_run(broken.run.directory));
}

TEST(Signals, AskedToStopARunSavesAndGoesOnLater) {
  for (int number : {SIGTERM, SIGINT}) {
    const ScratchFolder folder;
    RunConfig unbroken = config_of(folder, "unbroken"), broken = config_of(folder, "broken");
    for (RunConfig* config : {&unbroken, &broken}) config->checkpoint.every = 0;
    const Program whole = write_config(folder, unbroken), program = write_config(folder, broken);
    ASSERT_EQ(whole.start().wait(), 0) << whole.printed();
    {
      ChildProcess child = program.start();
      const std::string metrics = RunDirectory(broken.run.directory).metrics();
      ASSERT_TRUE(child.wait_until([&] { return lines_of(metrics) >= 3; })) << program.printed();
      child.signal(number);
      EXPECT_EQ(child.wait(std::chrono::seconds(20)), 75) << program.printed();
    }
    const RunResult half = result_of_run(broken.run.directory);
    EXPECT_LT(half.steps.size(), 60u);
    EXPECT_EQ(Checkpoint::open(broken.run.directory).step(),
              static_cast<int64_t>(half.steps.size()));
    EXPECT_NE(program.printed().find("stopped by a signal"), std::string::npos);
    ASSERT_EQ(program.start().wait(), 0) << program.printed();
    expect_same_run(result_of_run(unbroken.run.directory), result_of_run(broken.run.directory));
  }
}

TEST(Signals, ADirectoryInUseIsNotTouched) {
  const ScratchFolder folder;
  RunConfig config = config_of(folder, "run");
  config.train.steps = 100000;
  const Program program = write_config(folder, config);
  ChildProcess first = program.start();
  const std::string metrics = RunDirectory(config.run.directory).metrics();
  ASSERT_TRUE(first.wait_until([&] { return lines_of(metrics) >= 2; })) << program.printed();
  Program second = program;
  second.output = folder / "second.log";
  EXPECT_EQ(second.start().wait(), 2) << second.printed();
  EXPECT_NE(second.printed().find("another process trains in"), std::string::npos);
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(std::chrono::seconds(20)), 75) << program.printed();
}

// A limit on file sizes stands for a full disk: no file may grow beyond it.
TEST(Signals, AFullDiskWhileSavingLosesNothing) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "run");
  const RunResult unbroken = [&] {
    RunConfig other = config;
    other.run.directory = folder / "unbroken";
    return train_small(other);
  }();
  config.train.steps = 3;
  const RunResult half = train_small(config);
  config.train.steps = 8;
  config.checkpoint.every = 2;
  const Program program = write_config(folder, config);
  EXPECT_EQ(program.start(100000).wait(), 3) << program.printed();
  EXPECT_NE(program.printed().find("File too large"), std::string::npos) << program.printed();
  // The old checkpoint is whole, and the run goes on from it once there is room.
  EXPECT_EQ(Checkpoint::open(config.run.directory).step(), 3);
  EXPECT_EQ(tensors_of_run(config.run.directory), half.tensors);
  ASSERT_EQ(program.start().wait(), 0) << program.printed();
  expect_same_run(unbroken, result_of_run(config.run.directory));
}

// A signal is answered within this time, in the middle of work that takes far longer.
constexpr std::chrono::seconds soon{20};

std::vector<nlohmann::json> steps_of(const RunConfig& config) {
  std::vector<nlohmann::json> steps;
  std::ifstream metrics(RunDirectory(config.run.directory).metrics());
  for (std::string line; std::getline(metrics, line);) steps.push_back(nlohmann::json::parse(line));
  return steps;
}

// Waits for the words, signals, and expects the preemption code in time.
void stop_at(const Program& program, const std::string& words) {
  ChildProcess child = program.start();
  ASSERT_TRUE(child.wait_until([&] { return program.printed().find(words) != std::string::npos; }))
      << program.printed();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  child.signal(SIGTERM);
  EXPECT_EQ(child.wait(soon), 75) << program.printed();
}

// Minutes of evaluation after each step; what was cut short is no result, and it is made up for.
TEST(Signals, ALongEvaluationIsCutShortAndMadeAgainLater) {
  for (int64_t ranks : {1, 2}) {
    const ScratchFolder folder;
    make_small_store(folder / "first.h5", 1, 100000);
    make_small_store(folder / "second.h5", 2);
    RunConfig broken = small_config(folder, "broken");
    broken.parallel.data_parallel = ranks;
    broken.train.steps = 3;
    broken.train.evaluate_every = 1;
    broken.train.log_every = 1;
    broken.data.held_out = 0.5;
    RunConfig unbroken = broken;
    unbroken.run.directory = folder / "unbroken";
    unbroken.train.evaluate_sequences = 4;
    broken.train.evaluate_sequences = 1000000;
    broken.train.micro_batch = 1;
    unbroken.train.micro_batch = 1;
    const Program program = write_config(folder, broken);
    stop_at(program, "step 1/3");
    ASSERT_EQ(steps_of(broken).size(), 1u);
    EXPECT_FALSE(steps_of(broken)[0].contains("validation_loss"));
    EXPECT_EQ(Checkpoint::open(broken.run.directory).step(), 1);
    EXPECT_FALSE(std::filesystem::exists(broken.run.directory + "/summary.json"));
    broken.train.evaluate_sequences = 4;
    const RunResult whole = train_small(unbroken), resumed = train_small(broken);
    expect_same_run(whole, resumed);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(resumed.steps[i].at("validation_loss"), whole.steps[i].at("validation_loss"));
    }
  }
}

// A step of thousands of micro-batches is given up; the state is that of the step before.
TEST(Signals, ALongStepIsAbandoned) {
  const ScratchFolder folder;
  RunConfig broken = config_of(folder, "broken");
  broken.checkpoint.every = 0;
  broken.train.steps = 2;
  StageSection longer;
  longer.from_tokens = 1;
  longer.batch = 40000;
  broken.stages = {StageSection{}, longer};
  broken.train.log_every = 1;
  const Program program = write_config(folder, broken);
  stop_at(program, "step 1/2");
  EXPECT_EQ(steps_of(broken).size(), 1u);
  EXPECT_EQ(Checkpoint::open(broken.run.directory).step(), 1);
}

TEST(Signals, ALongSampleIsCutShort) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder, "run");
  config.parallel.data_parallel = 2;
  config.model.max_positions = 200000;
  config.train.sample_every = 1;
  config.train.sample_prompt = "It was";
  config.train.sample_tokens = 150000;
  config.train.sample_temperature = 0;  // in a circle, without an end of the text
  config.train.evaluate_every = 1;
  const Program program = write_config(folder, config);
  stop_at(program, "validation after step 1");
  ASSERT_EQ(steps_of(config).size(), 1u);
  EXPECT_FALSE(steps_of(config)[0].contains("sample"));
  EXPECT_TRUE(steps_of(config)[0].contains("validation_loss"));
  config.train.sample_tokens = 5;
  const RunResult resumed = train_small(config);
  ASSERT_EQ(resumed.steps.size(), 3u);
  EXPECT_TRUE(resumed.steps[0].contains("sample"));  // made up for
}

// One micro-batch that takes longer than there is time: nothing can be saved.
TEST(Signals, TheDeadlineEndsARunThatCannotStop) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "run");
  config.run.signal_deadline = 0.2;
  config.train.batch = 4096;
  config.train.micro_batch = 4096;
  config.model.hidden = 256;
  config.model.ffn = 1024;
  const Program program = write_config(folder, config);
  stop_at(program, "training: 8 steps");
  EXPECT_NE(program.printed().find("could not save within run.signal_deadline = 0.2"),
            std::string::npos)
      << program.printed();
}

}  // namespace
}  // namespace shoestring
