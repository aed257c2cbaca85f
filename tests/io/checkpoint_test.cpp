// Reading: what was saved comes back, damage is found and named.

#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "tests/io/checkpoint_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

void save_from_ranks(const std::string& directory, int ranks, int buckets,
                     const std::vector<SavedTensor>& tensors) {
  const auto writers =
      make_writers({.directory = directory, .ranks = ranks, .deadline_seconds = 30});
  on_ranks(ranks, [&](int rank) {
    CheckpointWriter& writer = *writers[static_cast<size_t>(rank)];
    CheckpointContent content = content_at(20, tensors);
    content.pieces = shard(tensors, rank, ranks, buckets);
    writer.save(content);
    writer.finish();
    EXPECT_EQ(writer.stats().saves, 1);
    EXPECT_GT(writer.stats().bytes, 0);
  });
}

TEST(Checkpoint, ComesBackBitForBitWhateverTheRanks) {
  const auto tensors = make_state(20);
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (int buckets : {1, 3}) {
      const ScratchFolder folder;
      save_from_ranks(folder.path(), ranks, buckets, tensors);
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

TEST(Checkpoint, RanksWithoutPiecesAreKept) {
  const ScratchFolder folder;
  const auto tensors = make_state(20);
  const auto writers = make_writers({.directory = folder.path(), .ranks = 3});
  on_ranks(3, [&](int rank) {
    CheckpointContent content = content_at(20, tensors);
    if (rank > 0) content.pieces.clear();
    writers[static_cast<size_t>(rank)]->save(content);
    writers[static_cast<size_t>(rank)]->finish();
  });
  EXPECT_EQ(difference(*Checkpoint::latest(folder.path(), nullptr), tensors), "");
  EXPECT_FALSE(fs::exists(folder / "step_00000020/rank_00001.h5"));
}

TEST(Checkpoint, ReadsFloatsInOtherTypes) {
  const ScratchFolder folder;
  const auto tensors = make_state(20);
  save_from_ranks(folder.path(), 3, 2, tensors);
  const Checkpoint loaded = Checkpoint::open(folder.path());
  const auto& stored = tensors[2];  // bf16
  const int64_t first = 1000, last = 4000;
  std::vector<uint32_t> wide(static_cast<size_t>(last - first));
  loaded.read(stored.name, first, last, Dtype::f32, reinterpret_cast<std::byte*>(wide.data()));
  for (size_t i = 0; i < wide.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, stored.bytes.data() + (static_cast<size_t>(first) + i) * 2, 2);
    ASSERT_EQ(wide[i], static_cast<uint32_t>(bits) << 16) << i;
  }
  std::byte out[8];
  EXPECT_THROW(loaded.read("counts", 0, 1, Dtype::f32, out), Error);
  EXPECT_THROW(loaded.read(stored.name, 5000, 5200, Dtype::bf16, out), Error);
  EXPECT_THROW(loaded.read("nothing", 0, 1, Dtype::f32, out), Error);
}

TEST(Checkpoint, OpensARunAFolderOrAStep) {
  const ScratchFolder folder;
  const auto tensors = make_state(20);
  save_from_ranks(folder / "checkpoints", 1, 1, tensors);
  EXPECT_EQ(Checkpoint::open(folder.path()).step(), 20);
  EXPECT_EQ(Checkpoint::open(folder / "checkpoints").step(), 20);
  EXPECT_EQ(Checkpoint::open(folder / "checkpoints/").step(), 20);
  EXPECT_EQ(Checkpoint::open(folder / "checkpoints/step_00000020").step(), 20);
  EXPECT_EQ(Checkpoint::open(folder / "checkpoints/step_00000020/").step(), 20);
  EXPECT_THROW(Checkpoint::open(folder / "nowhere"), Error);
  fs::create_directories(folder / "empty");
  EXPECT_THROW(Checkpoint::open(folder / "empty"), Error);
  EXPECT_FALSE(Checkpoint::latest(folder / "empty", nullptr));
  EXPECT_FALSE(Checkpoint::latest(folder / "nowhere", nullptr));
}

TEST(Checkpoint, ComparesTensors) {
  const ScratchFolder folder;
  save_from_ranks(folder.path(), 1, 1, make_state(20));
  const Checkpoint loaded = Checkpoint::open(folder.path());
  EXPECT_EQ(compare_tensors(loaded,
                            {{"model/layers.0.wq", {48, 32}},
                             {"model/layers.0.gain", {33}},
                             {"model/embedding", {301, 17}}},
                            "model/"),
            "");
  EXPECT_EQ(compare_tensors(loaded,
                            {{"model/layers.0.wq", {32, 48}},
                             {"model/layers.0.gain", {33}},
                             {"model/head", {301, 17}}},
                            "model/"),
            "model/head [301, 17] is missing in the checkpoint\n"
            "model/layers.0.wq is [48, 32] in the checkpoint but should be [32, 48]\n"
            "model/embedding [301, 17] is in the checkpoint but not expected");
}

// Two checkpoints of two ranks; the newer one gets damaged.
class DamagedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto writers = make_writers({.directory = folder_.path(), .ranks = 2});
    on_ranks(2, [&](int rank) {
      for (int64_t step : {10, 20}) {
        const auto tensors = make_state(step);
        CheckpointContent content = content_at(step, tensors);
        content.pieces = shard(tensors, rank, 2);
        writers[static_cast<size_t>(rank)]->save(content);
        writers[static_cast<size_t>(rank)]->finish();
      }
    });
  }
  // The newer one is passed over and the warning names the file; returns it.
  std::string warning_after_damage(const std::string& file) {
    std::string warning;
    const auto loaded =
        Checkpoint::latest(folder_.path(), [&](const std::string& text) { warning += text; });
    EXPECT_TRUE(loaded.has_value());
    if (!loaded) return warning;
    EXPECT_EQ(loaded->step(), 10) << warning;
    EXPECT_NE(warning.find(file), std::string::npos) << warning;
    return warning;
  }
  std::string newer(const std::string& file) const { return folder_ / ("step_00000020/" + file); }

  ScratchFolder folder_;
};

TEST_F(DamagedCheckpoint, AFlippedBitAnywhereIsFoundAndNamed) {
  std::mt19937_64 random(3);
  for (const std::string file : {"rank_00000.h5", "rank_00001.h5", "manifest.json"}) {
    const std::string good = read_file(newer(file));
    int named = 0;
    // Every stretch of the file, and its first and last bytes.
    for (size_t i = 0; i < 120; ++i) {
      size_t at = good.size() * i / 118 + random() % (good.size() / 118);
      if (i == 118) at = 0;
      if (i == 119 || at >= good.size()) at = good.size() - 1;
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
      write_file(newer(file), bad);
      const std::string warning = warning_after_damage(file);
      named += warning.find("tensor ") != std::string::npos;
    }
    if (file != "manifest.json") {  // most bytes of the others belong to tensors
      EXPECT_GT(named, 60) << file;
    }
    write_file(newer(file), good);
  }
  EXPECT_EQ(Checkpoint::latest(folder_.path(), nullptr)->step(), 20);
}

TEST_F(DamagedCheckpoint, ACutFileIsFoundAndNamed) {
  for (const std::string file : {"rank_00000.h5", "rank_00001.h5", "manifest.json"}) {
    const std::string good = read_file(newer(file));
    for (size_t i = 0; i < 40; ++i) {
      fs::resize_file(newer(file), good.size() * i / 40);
      const std::string warning = warning_after_damage(file);
      if (file != "manifest.json" && i < 36) {
        EXPECT_NE(warning.find("tensor "), std::string::npos) << warning;
      }
      write_file(newer(file), good);
    }
    write_file(newer(file), good + "x");
    warning_after_damage(file);
    fs::remove(newer(file));
    warning_after_damage(file);
    write_file(newer(file), good);
  }
}

TEST_F(DamagedCheckpoint, WithoutAnyGoodOneItIsADataError) {
  fs::resize_file(newer("rank_00001.h5"), 1000);
  fs::remove(folder_ / "step_00000010/manifest.json");
  int warnings = 0;
  try {
    Checkpoint::latest(folder_.path(), [&](const std::string&) { ++warnings; });
    FAIL() << "a broken checkpoint was handed out";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::data);
    EXPECT_NE(std::string(e.what()).find("rank_00001.h5"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("step_00000010"), std::string::npos) << e.what();
  }
  EXPECT_EQ(warnings, 0);  // the error says it all
}

// Who only reads a model cannot start from the beginning.
TEST_F(DamagedCheckpoint, AReaderIsToldOnceWhatItCanDo) {
  fs::resize_file(newer("rank_00001.h5"), 1000);
  fs::remove(folder_ / "step_00000010/manifest.json");
  testing::internal::CaptureStderr();
  std::string text;
  try {
    Checkpoint::open(folder_.path());
  } catch (const Error& e) {
    text = e.what();
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_NE(text.find("name another run or checkpoint"), std::string::npos) << text;
  EXPECT_EQ(text.find("from the beginning"), std::string::npos) << text;
}

TEST_F(DamagedCheckpoint, FilesOfAnotherStepDoNotMix) {
  fs::copy_file(folder_ / "step_00000010/rank_00001.h5", newer("rank_00001.h5"),
                fs::copy_options::overwrite_existing);
  warning_after_damage("rank_00001.h5");
}

}  // namespace
}  // namespace shoestring
