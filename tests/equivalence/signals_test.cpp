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
    const double delay = std::uniform_real_distribution<double>(0.2, 1.0)(random) * longest;
    std::this_thread::sleep_for(std::chrono::duration<double>(kills == 0 ? 0.6 * seconds : delay));
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

}  // namespace
}  // namespace shoestring
