#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/io/checkpoint_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

TEST(Checkpoint, ComesBackBitForBitWhateverTheRanks) {
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (int buckets : {1, 3}) {
      const ScratchFolder folder;
      const auto tensors = make_state(20);
      const auto writers =
          make_writers({.directory = folder.path(), .ranks = ranks, .deadline_seconds = 30});
      on_ranks(ranks, [&](int rank) {
        CheckpointWriter& writer = *writers[static_cast<size_t>(rank)];
        CheckpointContent content = content_at(20, tensors);
        content.pieces = shard(tensors, rank, ranks, buckets);
        writer.save(content);
        writer.finish();
        EXPECT_EQ(writer.stats().saves, 1);
        EXPECT_GT(writer.stats().bytes, 0);
      });
      const auto loaded = Checkpoint::latest(folder.path(), nullptr);
      ASSERT_TRUE(loaded);
      EXPECT_EQ(loaded->step(), 20);
      EXPECT_EQ(loaded->config(), "[run]\nstep = 20\n");
      EXPECT_EQ(loaded->state(), "{\"updates\": 20}");
      EXPECT_EQ(loaded->path(), folder / "step_00000020");
      EXPECT_EQ(difference(*loaded, tensors), "") << ranks << " ranks, " << buckets << " buckets";
      // Any other number of ranks reads its own shares.
      for (int others = 1; others <= 4; ++others) {
        for (int rank = 0; rank < others; ++rank) {
          for (const TensorPiece& p : shard(tensors, rank, others)) {
            std::vector<std::byte> bytes(static_cast<size_t>(p.end - p.begin) * size_of(p.dtype));
            loaded->read(p.name, p.begin, p.end, p.dtype, bytes.data());
            EXPECT_EQ(std::memcmp(bytes.data(), p.data, bytes.size()), 0) << p.name;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
