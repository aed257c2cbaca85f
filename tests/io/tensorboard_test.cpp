#include "io/tensorboard.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::string hex(const std::string& bytes) {
  std::string out;
  for (unsigned char c : bytes) {
    out += "0123456789abcdef"[c >> 4];
    out += "0123456789abcdef"[c & 15];
  }
  return out;
}

TEST(Tensorboard, ChecksumKnownAnswer) { EXPECT_EQ(crc32c("123456789"), 0xE3069283u); }

// Whole records computed independently of this code.
TEST(Tensorboard, RecordsKnownBytes) {
  EXPECT_EQ(hex(tfrecord(version_event(1.0))),
            "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
  EXPECT_EQ(hex(tfrecord(scalar_event(2.0, 5, "loss", 0.5f))),
            "1a00000000000000129bd82d09000000000000004010052a0d0a0b0a046c6f7373150000003fdb81a714");
}

TEST(Tensorboard, FileHoldsTheVersionThenTheScalars) {
  const ScratchFolder folder;
  {
    TensorboardWriter writer(folder.path());
    writer.scalar("loss", 0.5, 5, 2.0);
  }
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  EXPECT_NE(file.filename().string().find("tfevents"), std::string::npos);
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  const std::string scalar = tfrecord(scalar_event(2.0, 5, "loss", 0.5f));
  const std::string all = text.str();
  ASSERT_GT(all.size(), scalar.size());
  EXPECT_EQ(all.substr(all.size() - scalar.size()), scalar);
  EXPECT_EQ(all.size(), tfrecord(version_event(1.0)).size() + scalar.size());
}

// A resumed run replaces the steps that an earlier file told of: SessionLog (field 7) with the
// status START (field 1, value 1) at the first step to come.
TEST(Tensorboard, AResumedRunSaysWhichStepsItReplaces) {
  EXPECT_EQ(hex(restart_event(2.0, 5)),
            "090000000000000040"
            "1005"
            "3a020801");
  const ScratchFolder folder;
  { TensorboardWriter writer(folder.path(), 5); }
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  EXPECT_EQ(std::filesystem::file_size(file),
            tfrecord(version_event(1.0)).size() + tfrecord(restart_event(1.0, 5)).size());
}

}  // namespace
}  // namespace shoestring
