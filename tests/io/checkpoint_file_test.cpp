#include "io/checkpoint_file.h"

#include <gtest/gtest.h>

#include <cstdio>

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
    on_ranks(ranks, [&](int rank) {
      CheckpointContent content = content_at(4, tensors);
      content.pieces = shard(tensors, rank, ranks, ranks);
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
