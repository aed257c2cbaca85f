// The binary on a disk that is really full, while it packs and while it saves: one message, the
// exit code for data, and everything from before stays usable.

#include <gtest/gtest.h>

#include "tests/launcher/training_fixture.h"
#include "tests/support/child_process.h"
#include "tests/support/small_disk.h"

namespace shoestring {
namespace {

constexpr int64_t mega = 1 << 20;

// Lines of standard error that tell of a failure.
int64_t messages_in(const std::string& text) {
  int64_t count = 0;
  for (const char* word : {"error: ", "warning: "}) {
    for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++count;
  }
  return count;
}

void expect_full(const std::string& printed, bool real) {
  EXPECT_EQ(messages_in(printed), 1) << printed;
  EXPECT_NE(printed.find(real ? "No space left on device; free some space" : "File too large"),
            std::string::npos)
      << printed;
}

class FullDiskPacking : public testing::Test {
 protected:
  FullDiskPacking() {
    const std::string chapter = read_file(data_ + "persuasion.jsonl");  // 204 kB of tokens
    std::string six;
    for (int i = 0; i < 6; ++i) six += chapter;
    write_file(folder_ / "six.jsonl", six);
  }
  // Exit code of packing `input` to a file of the disk.
  int pack(const std::string& input, const std::string& out, long largest_file = 0) {
    std::filesystem::remove(log_);
    ChildProcess child({binary_path(), "data", "pack", input, "--tokenizer",
                        data_ + "tokenizer.json", "--out", out, "--quiet"},
                       {.output = log_, .largest_file_bytes = disk_.real() ? 0 : largest_file});
    return child.wait();
  }
  std::string printed() const { return read_file(log_); }

  const std::string data_ = SHOESTRING_SOURCE_DIR "/tests/data/tiny/";
  ScratchFolder folder_;
  SmallDisk disk_{mega};
  std::string log_ = folder_ / "log";
};

TEST_F(FullDiskPacking, LosesNothingAndGoesOn) {
  ASSERT_EQ(pack(data_ + "persuasion.jsonl", disk_ / "before.h5"), 0) << printed();
  const std::string six = folder_ / "six.jsonl", out = disk_ / "six.h5";
  // 1.2 MB of tokens: first there is no room for them, then none for the store beside them.
  for (const int64_t size : {mega, mega * 5 / 2}) {
    disk_.resize(size);
    EXPECT_EQ(pack(six, out, size == mega ? 400000 : 1202000), 3) << printed();
    expect_full(printed(), disk_.real());
    EXPECT_FALSE(std::filesystem::exists(out));
    EXPECT_FALSE(std::filesystem::exists(out + ".tmp"));
    TokenStore::open(disk_ / "before.h5")->verify();
  }
  disk_.resize(8 * mega);
  ASSERT_EQ(pack(six, out), 0) << printed();
  EXPECT_NE(printed().find("packed before"), std::string::npos) << printed();
  ASSERT_EQ(pack(six, folder_ / "elsewhere.h5"), 0) << printed();
  const auto resumed = TokenStore::open(out), whole = TokenStore::open(folder_ / "elsewhere.h5");
  EXPECT_TRUE(store_tokens(*resumed) == store_tokens(*whole));
  EXPECT_EQ(resumed->documents(), whole->documents());
}

class FullDiskSaving : public testing::TestWithParam<int64_t> {};  // free bytes

TEST_P(FullDiskSaving, KeepsTheEarlierCheckpoint) {
  const ScratchFolder folder;
  const SmallDisk disk(4 * mega);
  RunConfig config = small_config(folder, "unbroken");
  const RunResult unbroken = train_small(config);
  config.run.directory = disk / "run";
  config.train.steps = 3;
  const RunResult half = train_small(config);

  config.train.steps = 8;
  write_file(folder / "run.toml", dump_config(config));
  const std::string log = folder / "log";
  const auto run = [&](long largest_file) {
    return ChildProcess({binary_path(), "train", folder / "run.toml"},
                        {.output = log, .largest_file_bytes = disk.real() ? 0 : largest_file})
        .wait();
  };
  disk.fill(GetParam());
  EXPECT_EQ(run(100000), 3) << read_file(log);
  const std::string printed = read_file(log);
  EXPECT_EQ(messages_in(printed), 1) << printed;
  EXPECT_NE(printed.find(disk.real() ? "No space left on device" : "File too large"),
            std::string::npos)
      << printed;
  EXPECT_EQ(Checkpoint::open(config.run.directory).step(), 3);
  EXPECT_EQ(tensors_of_run(config.run.directory), half.tensors);

  disk.clear();
  ASSERT_EQ(run(0), 0) << read_file(log);
  expect_same_run(unbroken, result_of_run(config.run.directory));
}

// Of a save in the middle, by two ranks: one warning, which does not ask for a new start of what
// goes on.
TEST(FullDisk, TrainingThatGoesOnWarnsOnce) {
  const ScratchFolder folder;
  const SmallDisk disk(4 * mega);
  RunConfig config = small_config(folder);
  config.run.directory = disk / "run";
  config.train.steps = 4;
  config.checkpoint.every = 2;
  config.parallel.data_parallel = 2;
  config.parallel.zero_stage = 1;
  write_file(folder / "run.toml", dump_config(config));
  const std::string log = folder / "log";
  disk.fill(100000);
  ChildProcess child({binary_path(), "train", folder / "run.toml"},
                     {.output = log, .largest_file_bytes = disk.real() ? 0 : 100000});
  EXPECT_EQ(child.wait(), 3);
  const std::string printed = read_file(log);
  EXPECT_EQ(messages_in(printed), 2) << printed;  // of step 2 the warning, of step 4 the error
  EXPECT_NE(printed.find("the checkpoint of step 2 was not saved: "), std::string::npos) << printed;
  EXPECT_NE(printed.find("; training goes on and the next save tries again\n"), std::string::npos)
      << printed;
  EXPECT_EQ(printed.find("run the same command again; training"), std::string::npos) << printed;
}

// Room for the metrics but not for a checkpoint; room for nothing at all.
INSTANTIATE_TEST_SUITE_P(Free, FullDiskSaving, testing::Values(100000, 0),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace shoestring
