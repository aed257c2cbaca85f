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

// The boxes of a tensor [48, 32] that two of four ranks each cut by columns, the others by rows.
std::vector<BoxRange> boxes_of(int layout) {
  const auto all = [](TensorBox box) {
    return BoxRange{.box = box, .begin = 0, .end = box.elements()};
  };
  if (layout == 0) return {{.box = {}, .begin = 0, .end = 48 * 32}};
  if (layout == 1) {  // columns, the second half of them in two flat shares
    const TensorBox left{.rows = {{0, 0, 48}}, .first_column = 0, .columns = 13};
    const TensorBox right{.rows = {{0, 0, 48}}, .first_column = 13, .columns = 19};
    return {all(left),
            {.box = right, .begin = 0, .end = 400},
            {.box = right, .begin = 400, .end = 48 * 19}};
  }
  // As fused gate and up on three ranks.
  std::vector<BoxRange> boxes;
  for (int64_t r = 0; r < 3; ++r) {
    boxes.push_back(
        all({.rows = {{0, 8 * r, 8}, {8, 24 + 8 * r, 8}}, .first_column = 0, .columns = 32}));
  }
  return boxes;
}

void save_boxes(const std::string& directory, const SavedTensor& tensor,
                const std::vector<BoxRange>& boxes) {
  const int ranks = static_cast<int>(boxes.size());
  const auto writers =
      make_writers({.directory = directory, .ranks = ranks, .deadline_seconds = 30});
  on_ranks(ranks, [&](int rank) {
    const BoxRange& part = boxes[static_cast<size_t>(rank)];
    const std::vector<std::byte> values = values_of(tensor, part);
    CheckpointContent content = content_at(20, {});
    content.pieces = {{.name = tensor.name,
                       .shape = tensor.shape,
                       .begin = part.begin,
                       .end = part.end,
                       .dtype = tensor.dtype,
                       .data = values.data(),
                       .box = part.box}};
    writers[static_cast<size_t>(rank)]->save(content);
    writers[static_cast<size_t>(rank)]->finish();
  });
}

TEST(Checkpoint, BoxesOfAnyCutAreReadAsBoxesOfAnyOther) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f8e4m3}) {
    const SavedTensor tensor = make_tensor("model/w", {48, 32}, dtype, 20);
    for (int saved = 0; saved < 3; ++saved) {
      const ScratchFolder folder;
      save_boxes(folder.path(), tensor, boxes_of(saved));
      for (int wanted = 0; wanted < 3; ++wanted) {
        for (const BoxRange& part : boxes_of(wanted)) {
          const Checkpoint loaded = Checkpoint::open(folder.path());
          std::vector<std::byte> values(static_cast<size_t>(part.elements()) * size_of(dtype));
          loaded.read_box("model/w", part, dtype, values.data());
          EXPECT_TRUE(values == values_of(tensor, part)) << text_of(part);
          // Nobody reads more than his own.
          EXPECT_EQ(loaded.bytes_read(), static_cast<int64_t>(values.size()));
        }
      }
      EXPECT_EQ(difference(Checkpoint::open(folder.path()), {tensor}), "");
    }
  }
}

TEST(Checkpoint, BoxesAreReadInOtherTypes) {
  const ScratchFolder folder;
  const SavedTensor tensor = make_tensor("model/w", {48, 32}, Dtype::bf16, 20);
  save_boxes(folder.path(), tensor, boxes_of(2));
  const Checkpoint loaded = Checkpoint::open(folder.path());
  const BoxRange part = boxes_of(1)[1];
  const std::vector<std::byte> narrow = values_of(tensor, part);
  std::vector<uint32_t> wide(static_cast<size_t>(part.elements()));
  loaded.read_box("model/w", part, Dtype::f32, reinterpret_cast<std::byte*>(wide.data()));
  for (size_t i = 0; i < wide.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, narrow.data() + i * 2, 2);
    ASSERT_EQ(wide[i], static_cast<uint32_t>(bits) << 16) << i;
  }
  BoxRange foreign = part;
  foreign.box->columns = 20;
  try {
    loaded.read_box("model/w", foreign, Dtype::f32, reinterpret_cast<std::byte*>(wide.data()));
    FAIL() << "a box outside of the tensor was read";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tensor model/w [48, 32]: 20 columns"), std::string::npos);
  }
}

// Two ranks that both write the same rows, or none: refused by rank 0 before anything is final.
TEST(Checkpoint, AnElementIsWrittenOnce) {
  const SavedTensor tensor = make_tensor("model/w", {48, 32}, Dtype::f32, 20);
  for (bool twice : {false, true}) {
    const ScratchFolder folder;
    const BoxRange part = boxes_of(2)[0];
    CheckpointOptions options{.directory = folder.path(), .deadline_seconds = 30};
    CheckpointContent content = content_at(20, {});
    const std::vector<std::byte> values = values_of(tensor, part);
    for (int copy = 0; copy < (twice ? 2 : 1); ++copy) {
      TensorPiece piece{.name = "model/w",
                        .shape = {48, 32},
                        .begin = 0,
                        .end = copy == 1 ? 8 : part.end,
                        .data = values.data(),
                        .box = part.box};
      content.pieces.push_back(piece);
    }
    CheckpointWriter writer(options);
    writer.save(content);
    try {
      writer.finish();
      FAIL() << "saved";
    } catch (const Error& e) {
      const std::string what = e.what();
      EXPECT_NE(what.find("tensor model/w [48, 32]"), std::string::npos) << what;
      EXPECT_NE(what.find(twice ? "twice, from 0 to" : "a gap, from 256"), std::string::npos)
          << what;
    }
    EXPECT_FALSE(Checkpoint::latest(folder.path(), nullptr));
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

// Together the ranks look at every byte, each at its share: just one of them finds the damage.
TEST_F(DamagedCheckpoint, RanksShareTheVerification) {
  const std::string good = read_file(newer("rank_00001.h5"));
  for (int ranks : {1, 2, 3, 5, 40}) {
    int64_t bytes = 0, all = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto loaded = Checkpoint::latest(folder_.path(), nullptr, 20, {rank, ranks});
      ASSERT_EQ(loaded->step(), 20);
      bytes += loaded->bytes_verified();
    }
    for (const SavedTensor& t : make_state(20)) all += static_cast<int64_t>(t.bytes.size());
    EXPECT_EQ(bytes, all);
    for (size_t i = 0; i < 20; ++i) {
      std::string bad = good;
      bad[good.size() * i / 20] ^= 4;
      write_file(newer("rank_00001.h5"), bad);
      int found = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto loaded = Checkpoint::latest(folder_.path(), nullptr, 20, {rank, ranks});
        found += loaded->step() == 10;
      }
      EXPECT_EQ(found, 1) << ranks << " ranks, byte " << good.size() * i / 20;
    }
    write_file(newer("rank_00001.h5"), good);
  }
}

TEST_F(DamagedCheckpoint, FilesOfAnotherStepDoNotMix) {
  fs::copy_file(folder_ / "step_00000010/rank_00001.h5", newer("rank_00001.h5"),
                fs::copy_options::overwrite_existing);
  warning_after_damage("rank_00001.h5");
}

}  // namespace
}  // namespace shoestring
