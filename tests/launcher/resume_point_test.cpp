#include "launcher/resume_point.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// A run with checkpoints of steps 2, 4 and 6, as each of three ranks sees it: three copies.
class ResumePoint : public testing::Test {
 protected:
  void SetUp() override {
    RunConfig config = small_config(folder_);
    config.train.steps = 6;
    config.checkpoint.every = 2;
    config.checkpoint.keep = 3;
    train_small(config);
    for (int rank = 0; rank < 3; ++rank) {
      fs::copy(folder_ / "run/checkpoints", of_rank(rank), fs::copy_options::recursive);
    }
  }
  std::string of_rank(int rank) const { return folder_ / cat("rank", rank); }
  // In the middle of the third that this rank verifies.
  void damage(int rank, const std::string& step) const {
    const std::string path = cat(of_rank(rank), "/", step, "/rank_00000.h5");
    std::string bytes = read_file(path);
    bytes[bytes.size() * (2 * static_cast<size_t>(rank) + 1) / 6] ^= 1;
    write_file(path, bytes);
  }
  // The step each rank goes on from, -1 for none; and what was warned of.
  std::vector<int64_t> find() {
    std::vector<int64_t> steps(3, -1);
    std::mutex mutex;
    run_ranks(3, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      auto warn = [&](const std::string& text) {
        std::lock_guard lock(mutex);
        append(warnings_, "rank ", world.rank(), ": ", text, "\n");
      };
      const auto found = find_resume_point(world, stream, of_rank(world.rank()), warn);
      if (found) steps[static_cast<size_t>(world.rank())] = found->step();
    });
    return steps;
  }
  ScratchFolder folder_;
  std::string warnings_;
};

TEST_F(ResumePoint, IsTheNewestOfAll) {
  EXPECT_EQ(find(), (std::vector<int64_t>{6, 6, 6}));
  EXPECT_EQ(warnings_, "");
}

TEST_F(ResumePoint, AnIntactOlderOneIsTakenWhenOneRanksNewestIsDamaged) {
  damage(1, "step_00000006");
  EXPECT_EQ(find(), (std::vector<int64_t>{4, 4, 4}));
  EXPECT_NE(warnings_.find("rank 1: the checkpoint of step 6 is passed over"), std::string::npos);
  EXPECT_EQ(std::count(warnings_.begin(), warnings_.end(), '\n'), 1) << warnings_;
}

// As a rank whose folder is another one: it has nothing to warn of, and the others know no reason.
TEST_F(ResumePoint, WhatARankDoesNotSeeIsToldByOneThatDoes) {
  fs::remove_all(of_rank(1) + "/step_00000006");
  EXPECT_EQ(find(), (std::vector<int64_t>{4, 4, 4}));
  EXPECT_EQ(warnings_,
            "rank 0: the checkpoint of step 6 is passed over: rank 1 has none that is good after "
            "step 4\n");
}

// Rank 1 has 4 and 2, rank 2 has 6 and 2: neither's newest will do.
TEST_F(ResumePoint, GoesBackUntilAllAgree) {
  damage(1, "step_00000006");
  damage(2, "step_00000004");
  EXPECT_EQ(find(), (std::vector<int64_t>{2, 2, 2}));
}

TEST_F(ResumePoint, WhatAllRanksFindBrokenIsToldOnce) {
  for (int rank = 0; rank < 3; ++rank) damage(rank, "step_00000006");
  EXPECT_EQ(find(), (std::vector<int64_t>{4, 4, 4}));
  EXPECT_EQ(warnings_.find("rank 0: the checkpoint of step 6"), 0u) << warnings_;
  EXPECT_EQ(std::count(warnings_.begin(), warnings_.end(), '\n'), 1) << warnings_;
}

// By the one that finds it, with the reason; those that have it sound have nothing to add.
TEST_F(ResumePoint, WhatOneRankFindsBrokenIsToldOnce) {
  damage(2, "step_00000006");
  EXPECT_EQ(find(), (std::vector<int64_t>{4, 4, 4}));
  EXPECT_EQ(warnings_.find("rank 2: the checkpoint of step 6 is passed over: "), 0u) << warnings_;
  EXPECT_EQ(std::count(warnings_.begin(), warnings_.end(), '\n'), 1) << warnings_;
}

TEST_F(ResumePoint, NothingAnywhereIsAFreshStart) {
  for (int rank = 0; rank < 3; ++rank) fs::remove_all(of_rank(rank));
  EXPECT_EQ(find(), (std::vector<int64_t>{-1, -1, -1}));
}

TEST_F(ResumePoint, ARankWithoutAnyIsAnError) {
  fs::remove_all(of_rank(2));
  expect_error(ExitCode::data, {"rank 2 finds no checkpoint", "step 6", "run.directory"},
               [&] { find(); });
}

TEST_F(ResumePoint, TwoRunsInOnePlaceAreAnError) {
  RunConfig other = small_config(folder_, "other");
  other.train.steps = 6;
  other.run.seed = 9;
  train_small(other);
  fs::remove_all(of_rank(1));
  fs::copy(folder_ / "other/checkpoints", of_rank(1), fs::copy_options::recursive);
  expect_error(ExitCode::data, {"step 6", "different runs"}, [&] { find(); });
}

}  // namespace
}  // namespace shoestring
