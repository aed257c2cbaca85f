#include "io/checkpoint_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

TEST(CheckpointFolder, KnowsItsOwnNamesOnly) {
  const ScratchFolder scratch;
  const CheckpointFolder folder(scratch.path());
  EXPECT_EQ(folder.final_path(1000), scratch / "step_00001000");
  EXPECT_EQ(folder.final_path(123456789012), scratch / "step_123456789012");
  EXPECT_NE(folder.temporary_path(7, 0), folder.temporary_path(7, 1));
  EXPECT_TRUE(folder.steps().empty());
  for (const char* name :
       {"step_00000020", "step_00000003", "step_123456789012", "step_7", "step_0000000x", "step_",
        ".step_00000009.0.tmp", "other", "step_99999999999999999999999"}) {
    fs::create_directories(scratch / name);
  }
  write_file(scratch / "step_00000044", "a file");
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{3, 20, 123456789012}));
  EXPECT_TRUE(CheckpointFolder(scratch / "nowhere").steps().empty());
}

TEST(CheckpointFolder, CommitsAndReplaces) {
  const ScratchFolder scratch;
  const CheckpointFolder folder(scratch.path());
  for (int64_t sequence = 0; sequence < 3; ++sequence) {
    const std::string temporary = folder.temporary_path(5, sequence);
    make_folder(temporary);
    write_file(temporary + "/number", cat(sequence));
    folder.commit(temporary, 5);
    EXPECT_EQ(read_file(folder.final_path(5) + "/number"), cat(sequence));
    EXPECT_FALSE(fs::exists(temporary));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 1);
}

TEST(CheckpointFolder, RetainsTheRightOnes) {
  auto kept = [](int64_t latest, int64_t keep, int64_t keep_every) {
    const ScratchFolder scratch;
    const CheckpointFolder folder(scratch.path());
    for (int64_t step = 10; step <= 60; step += 10) {
      write_file(folder.final_path(step) + "/manifest.json", "{}");
    }
    folder.retain(latest, keep, keep_every);
    for (const auto& entry : fs::directory_iterator(scratch.path())) {
      EXPECT_NE(entry.path().filename().string()[0], '.');
    }
    return folder.steps();
  };
  using Steps = std::vector<int64_t>;
  EXPECT_EQ(kept(60, 1, 0), (Steps{60}));
  EXPECT_EQ(kept(60, 3, 0), (Steps{40, 50, 60}));
  EXPECT_EQ(kept(60, 2, 20), (Steps{20, 40, 50, 60}));
  EXPECT_EQ(kept(60, 9, 0), (Steps{10, 20, 30, 40, 50, 60}));
  EXPECT_EQ(kept(30, 2, 0), (Steps{30, 60}));
}

TEST(CheckpointFolder, WhatCannotBeUsedIsNotAmongTheKept) {
  const ScratchFolder scratch;
  const CheckpointFolder folder(scratch.path());
  for (int64_t step = 10; step <= 60; step += 10) {
    write_file(folder.final_path(step) + "/manifest.json", "{}");
  }
  std::filesystem::remove(folder.final_path(50) + "/manifest.json");
  folder.retain(60, 2, 0, {40});
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{30, 40, 50, 60}));
  write_file(folder.final_path(70) + "/manifest.json", "{}");
  folder.retain(70, 2, 0, {40});  // now there are good ones enough
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{60, 70}));
}

TEST(CheckpointFolder, NamesTheFolderThatCannotBeMade) {
  const ScratchFolder scratch;
  write_file(scratch / "file", "x");
  try {
    make_folder(scratch / "file/below");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("file/below"), std::string::npos);
  }
  EXPECT_THROW(sync_folder(scratch / "nowhere"), Error);
}

}  // namespace
}  // namespace shoestring
