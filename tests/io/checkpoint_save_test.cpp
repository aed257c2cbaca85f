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

// A tensor larger than a block, whose values are asked for piece by piece.
TEST(CheckpointSave, SavesWhatItIsGivenBlockByBlock) {
  const ScratchFolder folder;
  constexpr int64_t rows = 1500, columns = 1000;
  int64_t asked = 0, largest = 0;
  auto value = [](int64_t i) { return BFloat16(static_cast<float>(i % 251)); };
  CheckpointContent content{.step = 0, .config = "a = 1", .state = "{}", .pieces = {}};
  content.pieces.push_back({.name = "w",
                            .shape = {rows, columns},
                            .begin = 0,
                            .end = rows * columns,
                            .dtype = Dtype::bf16,
                            .read = [&](int64_t first, int64_t last, std::byte* out) {
                              EXPECT_EQ(first, asked);
                              asked = last;
                              largest = std::max(largest, last - first);
                              for (int64_t i = first; i < last; ++i) {
                                const BFloat16 x = value(i);
                                std::memcpy(out + (i - first) * 2, &x, 2);
                              }
                            }});
  save_checkpoint(folder.path(), content);
  EXPECT_EQ(asked, rows * columns);
  EXPECT_LE(largest, 4 << 20);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  std::vector<float> values(rows * columns);
  checkpoint.read("w", 0, rows * columns, Dtype::f32, reinterpret_cast<std::byte*>(values.data()));
  for (int64_t i = 0; i < rows * columns; ++i) {
    ASSERT_EQ(values[static_cast<size_t>(i)], static_cast<float>(i % 251));
  }
  // A failure on the way leaves nothing.
  content.step = 1;
  content.pieces[0].read = [](int64_t, int64_t, std::byte*) { fail_data("no more"); };
  EXPECT_THROW(save_checkpoint(folder.path(), content), Error);
  EXPECT_EQ(CheckpointFolder(folder.path()).steps(), std::vector<int64_t>{0});
}

}  // namespace
}  // namespace shoestring
