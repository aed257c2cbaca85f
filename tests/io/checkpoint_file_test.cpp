#include "io/checkpoint_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <tuple>

#include "io/digest.h"
#include "tests/io/checkpoint_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(CheckpointFile, EveryByteIsCoveredByOneDigest) {
  const ScratchFolder folder;
  const auto tensors = make_state(4);
  const CheckpointContent content = content_at(4, tensors);
  CheckpointFile file(folder.path(), {.directory = "", .rank = 2, .ranks = 3}, content);
  for (size_t i = content.pieces.size(); i-- > 0;) file.write(i, content.pieces[i].data);
  const StoredFile stored = file.finish();
  EXPECT_EQ(stored.name, "rank_00002.h5");
  EXPECT_EQ(stored.rank, 2);
  const std::string bytes = read_file(folder / stored.name);
  ASSERT_EQ(bytes.size(), stored.bytes);
  std::string rest = bytes;
  for (auto p = stored.pieces.rbegin(); p != stored.pieces.rend(); ++p) {
    EXPECT_EQ(digest_of(std::string_view(bytes).substr(p->offset, p->bytes())), p->digest);
    rest.erase(p->offset, p->bytes());
  }
  EXPECT_EQ(digest_of(rest), stored.frame);
  for (const SavedTensor& t : tensors) {
    EXPECT_TRUE(std::any_of(stored.pieces.begin(), stored.pieces.end(), [&](const StoredPiece& p) {
      return p.name == t.name && p.dataset == t.name &&
             std::memcmp(bytes.data() + p.offset, t.bytes.data(), t.bytes.size()) == 0;
    })) << t.name;
  }
}

TEST(CheckpointFile, TheSameContentMakesTheSameFile) {
  std::string files[2];
  for (std::string& bytes : files) {
    const ScratchFolder folder;
    const auto tensors = make_state(4);
    const CheckpointContent content = content_at(4, tensors);
    CheckpointFile file(folder.path(), {}, content);
    for (size_t i = 0; i < content.pieces.size(); ++i) file.write(i, content.pieces[i].data);
    file.finish();
    bytes = read_file(folder / "rank_00000.h5");
  }
  EXPECT_EQ(files[0], files[1]);
}

TEST(CheckpointFile, NamesBadPieces) {
  EXPECT_THROW(check_piece({.name = "/a", .shape = {1}, .begin = 0, .end = 0}), Error);
  EXPECT_THROW(check_piece({.name = "a/", .shape = {1}, .begin = 0, .end = 0}), Error);
  EXPECT_THROW(check_piece({.name = "a", .shape = {1}, .begin = 0, .end = 2}), Error);
  EXPECT_THROW(check_piece({.name = "a", .shape = {1}, .begin = 0, .end = 1}), Error);
  EXPECT_NO_THROW(check_piece({.name = "a", .shape = {1}, .begin = 1, .end = 1}));
  const TensorBox box{.rows = {{0, 1, 1}}, .first_column = 1, .columns = 2};
  EXPECT_NO_THROW(check_piece({.name = "a", .shape = {2, 3}, .begin = 2, .end = 2, .box = box}));
  EXPECT_THROW(check_piece({.name = "a", .shape = {1, 3}, .begin = 2, .end = 2, .box = box}),
               Error);
  EXPECT_THROW(check_piece({.name = "a", .shape = {2, 3}, .begin = 3, .end = 3, .box = box}),
               Error);
}

// More than an attribute of the compact kind holds.
TEST(CheckpointFile, ABoxMayHaveManyRuns) {
  const ScratchFolder folder;
  const SavedTensor tensor = make_tensor("experts", {40000, 2}, Dtype::u8, 4);
  CheckpointContent content = content_at(4, {});
  for (int64_t half = 0; half < 2; ++half) {
    TensorBox box{.rows = {}, .first_column = 0, .columns = 2};
    for (int64_t i = 0; i < 20000; ++i) {
      box.rows.push_back({.local = i, .global = 2 * i + half, .count = 1});
    }
    content.pieces.push_back({.name = tensor.name,
                              .shape = tensor.shape,
                              .begin = 0,
                              .end = 40000,
                              .dtype = Dtype::u8,
                              .data = tensor.bytes.data() + half * 40000,
                              .box = box});
  }
  CheckpointWriter writer({.directory = folder.path()});
  writer.save(content);
  writer.finish();
  const std::vector<std::byte> values = read_whole(Checkpoint::open(folder.path()), "experts");
  for (size_t i = 0; i < 80000; i += 4) {
    ASSERT_EQ(values[i], tensor.bytes[i / 2]);
    ASSERT_EQ(values[i + 3], tensor.bytes[40000 + i / 2 + 1]);
  }
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return "cannot run " + command;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  ::pclose(pipe);
  return text;
}

// Debian's python3-h5py, which launcher/install --tests brings.
TEST(CheckpointFile, H5pyReadsEveryTensor) {
  auto tensors = make_state(4);
  for (const char* name :
       {"f64", "f16", "f8e4m3", "f8e5m2", "i8", "i16", "u16", "i32", "u32", "u64", "bf16"}) {
    tensors.push_back(make_tensor(cat("types/", name), {260}, dtype_from_name(name), 4));
  }
  for (int ranks : {1, 3}) {
    const ScratchFolder folder;
    const auto writers = make_writers({.directory = folder.path(), .ranks = ranks});
    size_t parts = 0;
    for (int rank = 0; rank < ranks; ++rank) parts += shard(tensors, rank, ranks, ranks).size();
    // Besides, on rank 0, a tensor in boxes: one whole, two that are parts of another.
    const SavedTensor cut = make_tensor("boxes/w", {6, 5}, Dtype::f32, 4);
    const TensorBox left{.rows = {{0, 0, 6}}, .first_column = 0, .columns = 2};
    const TensorBox right{.rows = {{0, 0, 2}, {2, 2, 4}}, .first_column = 2, .columns = 3};
    const auto add_boxes = [&](std::vector<TensorPiece>& pieces) {
      for (const auto& [box, begin, end] :
           {std::tuple(left, 0, 12), std::tuple(right, 0, 7), std::tuple(right, 7, 18)}) {
        pieces.push_back({.name = cut.name,
                          .shape = cut.shape,
                          .begin = begin,
                          .end = end,
                          .data = cut.bytes.data(),
                          .box = box});
      }
    };
    parts += 3;
    on_ranks(ranks, [&](int rank) {
      CheckpointContent content = content_at(4, tensors);
      content.pieces = shard(tensors, rank, ranks, ranks);
      if (rank == 0) add_boxes(content.pieces);
      writers[static_cast<size_t>(rank)]->save(content);
      writers[static_cast<size_t>(rank)]->finish();
    });
    EXPECT_EQ(output_of(cat("/usr/bin/python3 ", SHOESTRING_SOURCE_DIR,
                            "/tests/io/read_checkpoint.py ", folder / "step_00000004")),
              cat(parts, " parts read\n"));
  }
}

}  // namespace
}  // namespace shoestring
