#include "io/checkpoint_save.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/io/checkpoint_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

void save_all(CheckpointSave& save) {
  save.begin();
  for (size_t i = 0; i < save.content().pieces.size(); ++i) save.write(i);
  save.commit();
}

TEST(CheckpointSave, NothingHasItsNameBeforeTheEnd) {
  const ScratchFolder folder;
  const auto tensors = make_state(8);
  const std::atomic<bool> closing = false;
  const CheckpointOptions options{.directory = folder.path()};
  CheckpointSave save(options, 0, content_at(8, tensors), closing);
  save.begin();
  for (size_t i = 0; i < tensors.size(); ++i) save.write(i);
  EXPECT_FALSE(Checkpoint::latest(folder.path(), nullptr));
  EXPECT_TRUE(fs::exists(save.temporary()));
  save.commit();
  EXPECT_FALSE(fs::exists(save.temporary()));
  EXPECT_EQ(difference(Checkpoint::open(folder.path()), tensors), "");
  EXPECT_GT(save.bytes(), 20000);
}

TEST(CheckpointSave, GivingUpLeavesNothing) {
  const ScratchFolder folder;
  const std::atomic<bool> closing = false;
  const CheckpointOptions options{.directory = folder.path()};
  const auto tensors = make_state(8);  // the content only points at them
  CheckpointSave save(options, 0, content_at(8, tensors), closing);
  save.begin();
  save.give_up("enough");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointSave, AFollowerReadsWhyAnotherRankGaveUp) {
  const ScratchFolder folder;
  const std::atomic<bool> closing = false;
  const auto tensors = make_state(8);
  const CheckpointOptions first{.directory = folder.path(), .ranks = 2};
  const CheckpointOptions second{.directory = folder.path(), .rank = 1, .ranks = 2};
  CheckpointSave leader(first, 4, content_at(8, tensors), closing);
  CheckpointSave follower(second, 4, content_at(8, tensors), closing);
  follower.begin();
  follower.give_up("the disk is full");
  try {
    save_all(leader);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 1: the disk is full");
    leader.give_up(e.what());
  }
  // A rank that comes later does not wait.
  CheckpointSave late(second, 4, content_at(8, tensors), closing);
  EXPECT_THROW(save_all(late), Error);
  late.give_up("another rank");
  // No data is left of either.
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    EXPECT_NE(entry.path().extension(), ".h5");
  }
}

TEST(CheckpointSave, PeersDoNotHoldUpTheEndOfARun) {
  const ScratchFolder folder;
  const std::atomic<bool> closing = true;
  const CheckpointOptions options{.directory = folder.path(), .ranks = 2, .deadline_seconds = 1e6};
  const auto tensors = make_state(8);
  CheckpointSave leader(options, 0, content_at(8, tensors), closing);
  EXPECT_THROW(save_all(leader), Error);  // after seconds, not days
}

}  // namespace
}  // namespace shoestring
