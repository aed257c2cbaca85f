#include "io/checkpoint_manifest.h"

#include <gtest/gtest.h>

#include <random>

#include "core/check.h"
#include "core/text.h"
#include "io/digest.h"

namespace shoestring {
namespace {

// Tensor a [2, 3] in two parts on two ranks, b [] on the first.
Manifest sample() {
  StoredPiece a{.name = "a",
                .shape = {2, 3},
                .begin = 0,
                .end = 4,
                .dataset = "a",
                .offset = 100,
                .digest = std::string(32, '1')};
  StoredPiece b{.name = "b",
                .shape = {},
                .begin = 0,
                .end = 1,
                .dtype = Dtype::f64,
                .dataset = "b",
                .offset = 116,
                .digest = std::string(32, '2')};
  StoredPiece rest = a;
  rest.begin = 4;
  rest.end = 6;
  return {.step = 12,
          .config = "x = \"ü\"\n",
          .state = "{}",
          .files = {{.rank = 0,
                     .name = name_of_rank_file(0),
                     .bytes = 200,
                     .frame = std::string(32, '3'),
                     .pieces = {a, b}},
                    {.rank = 1,
                     .name = name_of_rank_file(1),
                     .bytes = 112,
                     .frame = std::string(32, '4'),
                     .pieces = {rest}}}};
}

// Tensor c [4, 6] on two ranks: columns 0 to 3 of all rows; columns 4 and 5 in two runs of rows,
// the second of which is another piece.
Manifest sample_of_boxes() {
  StoredPiece left{.name = "c",
                   .shape = {4, 6},
                   .begin = 0,
                   .end = 16,
                   .dataset = "c",
                   .offset = 100,
                   .digest = std::string(32, '5'),
                   .box = TensorBox{.rows = {{0, 0, 4}}, .first_column = 0, .columns = 4}};
  StoredPiece outer = left;
  outer.end = 4;
  outer.box = TensorBox{.rows = {{0, 0, 1}, {1, 3, 1}}, .first_column = 4, .columns = 2};
  StoredPiece inner = outer;
  inner.offset = 116;
  inner.dataset = "c@10";
  inner.box = TensorBox{.rows = {{0, 1, 2}}, .first_column = 4, .columns = 2};
  Manifest manifest = sample();
  for (StoredFile& file : manifest.files) file.bytes = 200, file.pieces.clear();
  manifest.files[0].pieces = {left};
  manifest.files[1].pieces = {outer, inner};
  return manifest;
}

std::string refusal(const Manifest& manifest) {
  try {
    pieces_by_tensor(parse_manifest(manifest_text(manifest), "m.json"), "m.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::data);
    EXPECT_TRUE(std::string(e.what()).starts_with("m.json")) << e.what();
    return e.what();
  }
  return "";
}

TEST(CheckpointManifest, ReadsBackWhatItWrites) {
  const std::string text = manifest_text(sample());
  const Manifest read = parse_manifest(text, "m.json");
  EXPECT_EQ(manifest_text(read), text);
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.config, sample().config);
  EXPECT_EQ(read.files[1].pieces[0].begin, 4);
  EXPECT_EQ(pieces_by_tensor(read, "m.json").at("a").pieces.size(), 2u);
  const StoredFile file = parse_rank(rank_text(sample().files[1]), "r.json");
  EXPECT_EQ(rank_text(file), rank_text(sample().files[1]));
  EXPECT_EQ(refusal(sample()), "");
}

TEST(CheckpointManifest, ReadsBackBoxes) {
  const std::string text = manifest_text(sample_of_boxes());
  const Manifest read = parse_manifest(text, "m.json");
  EXPECT_EQ(manifest_text(read), text);
  EXPECT_EQ(read.files[1].pieces[0].box, sample_of_boxes().files[1].pieces[0].box);
  EXPECT_EQ(refusal(sample_of_boxes()), "");
  const std::string rank = rank_text(sample_of_boxes().files[1]);
  EXPECT_EQ(rank_text(parse_rank(rank, "r.json")), rank);
}

// What has no boxes is written as before there were any, and so is read by programs of then.
TEST(CheckpointManifest, SaysWhichVersionItIs) {
  EXPECT_NE(manifest_text(sample()).find("\"version\": 1,"), std::string::npos);
  EXPECT_NE(manifest_text(sample_of_boxes()).find("\"version\": 2,"), std::string::npos);
  EXPECT_NE(rank_text(sample_of_boxes().files[0]).find("\"version\": 2"), std::string::npos);
  EXPECT_EQ(manifest_text(sample()).find("\"rows\""), std::string::npos);
  std::string text = manifest_text(sample());
  text.resize(text.rfind(",\n\"digest\""));
  text.replace(text.rfind(": 1"), 3, ": 3");
  text = cat(text, ",\n\"digest\": \"", digest_of(text), "\"}\n");
  EXPECT_THROW(parse_manifest(text, "m.json"), Error);
}

// As it was written before there were boxes.
TEST(CheckpointManifest, ReadsAndWritesVersionOneAsEver) {
  std::string text = R"({
"config": "x = 1\n",
"files": [
{
"bytes": 64,
"frame_digest": "33333333333333333333333333333333",
"name": "rank_00000.h5",
"pieces": [
{
"begin": 0,
"dataset": "a",
"digest": "11111111111111111111111111111111",
"dtype": "bf16",
"end": 6,
"name": "a",
"offset": 8,
"shape": [
2,
3
]
}
],
"rank": 0
}
],
"ranks": 1,
"state": "{}",
"step": 12,
"version": 1)";
  text = cat(text, ",\n\"digest\": \"", digest_of(text), "\"}\n");
  const Manifest manifest = parse_manifest(text, "m.json");
  EXPECT_EQ(manifest.files[0].pieces[0].end, 6);
  EXPECT_FALSE(manifest.files[0].pieces[0].box);
  EXPECT_EQ(manifest_text(manifest), text);
}

TEST(CheckpointManifest, RefusesBoxesThatAreNone) {
  auto refused = [](auto change, const std::string& why) {
    Manifest manifest = sample_of_boxes();
    change(*manifest.files[1].pieces[0].box);
    const std::string message = refusal(manifest);
    EXPECT_NE(message.find(why), std::string::npos) << why << ": " << message;
  };
  refused([](TensorBox& b) { b.rows[1].global = 2; }, "twice, from 16 to 18: of rank 1 and");
  refused([](TensorBox& b) { b.first_column = 3; }, "twice, from 3 to 4: of rank 0 and of rank 1");
  refused([](TensorBox& b) { b.rows[1].global = 0; }, "tensor c [4, 6]: the rows from 0 on");
  refused([](TensorBox& b) { b.rows[1].count = 2; }, "2 rows from 3 on are not among its 4");
  refused([](TensorBox& b) { b.rows.pop_back(); }, "not among its part's 2");
  refused([](TensorBox& b) { b.rows[1].count = -1; }, "rows is -1");
  refused([](TensorBox& b) { b.columns = -2; }, "columns is -2");
  refused([](TensorBox& b) { b.columns = 3; }, "3 columns from 4 on are not among its 6");
  refused([](TensorBox& b) { b.rows[0].count = b.rows[1].count = INT64_MAX; }, "too many");
  refused([](TensorBox& b) { b.rows[0].count = INT64_MAX, b.rows[1].count = 0; }, "not among");
  refused([](TensorBox& b) { b.first_column = INT64_MAX; }, "not among");
  Manifest holed = sample_of_boxes();
  holed.files[1].pieces.pop_back();
  EXPECT_NE(refusal(holed).find("tensor c [4, 6] has a gap, from 10 to 12"), std::string::npos);
}

TEST(CheckpointManifest, PassesOnAnotherRanksError) {
  try {
    parse_rank(rank_error_text("rank 3: no space"), "r.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 3: no space");
  }
}

TEST(CheckpointManifest, RefusesContradictions) {
  auto refused = [](auto change, const std::string& why) {
    Manifest manifest = sample();
    change(manifest);
    const std::string message = refusal(manifest);
    EXPECT_NE(message.find(why), std::string::npos) << why << ": " << message;
  };
  refused([](Manifest& m) { m.files[1].pieces.clear(); }, "gap, from 4 to 6");
  refused([](Manifest& m) { m.files[1].pieces[0].begin = 5; }, "gap, from 4 to 5");
  refused([](Manifest& m) { m.files[1].pieces[0].begin = 3; },
          "twice, from 3 to 4: of rank 0 and of rank 1");
  refused([](Manifest& m) { m.files[1].pieces[0].shape = {3, 2}; }, "disagree");
  refused([](Manifest& m) { m.files[1].pieces[0].end = 7; },
          "tensor a [2, 3]: elements 4 to 7 are not among its 6");
  refused([](Manifest& m) { m.files[1].pieces[0].offset = 105; }, "past the end");
  refused([](Manifest& m) { m.files[1].pieces[0].offset = UINT64_MAX; }, "offset is 18446");
  refused([](Manifest& m) { m.files[0].pieces[1].offset = 115; }, "overlaps");
  refused([](Manifest& m) { m.files[1].name = "../../etc/passwd"; }, "is called");
  refused([](Manifest& m) { m.files[1].name.clear(); }, "rank 1 has tensors but no file");
  refused([](Manifest& m) { m.files[1].rank = 0; }, "");
  refused([](Manifest& m) { std::swap(m.files[0], m.files[1]); }, "in order");
  refused([](Manifest& m) { m.step = -1; }, "step is -1");
}

TEST(CheckpointManifest, FindsEveryFlippedBitAndEveryCut) {
  const std::string good = manifest_text(sample());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      ASSERT_THROW(parse_manifest(bad, "m.json"), Error) << i;
    }
    ASSERT_THROW(parse_manifest(good.substr(0, i), "m.json"), Error) << i;
  }
}

// With a digest that fits, anything may stand before it.
TEST(CheckpointManifest, SurvivesAnySealedText) {
  const std::string texts[] = {manifest_text(sample()), manifest_text(sample_of_boxes())};
  std::mt19937_64 random(5);
  constexpr std::string_view alphabet = "{}[],:\"0123456789-.eatrufn \xff";
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    const std::string& good = texts[round % 2];
    std::string text = good.substr(0, good.rfind(",\n\"digest\""));
    for (uint64_t edits = random() % 3 + 1; edits > 0; --edits) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) text[at] = alphabet[random() % alphabet.size()];
      if (random() % 2 == 0) text.insert(at, 1, alphabet[random() % alphabet.size()]);
      if (random() % 2 == 0) text.erase(at, random() % 30);
      if (text.empty()) text.push_back('{');
    }
    text = cat(text, ",\n\"digest\": \"", digest_of(text), "\"}\n");
    try {
      pieces_by_tensor(parse_manifest(text, "m.json"), "m.json");
      ++accepted;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::data);
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(CheckpointManifest, RefusesNumbersThatDoNotFit) {
  const std::string good = manifest_text(sample_of_boxes());
  for (const char* key : {"step", "rank", "bytes", "begin", "end", "offset"}) {
    for (const char* number : {"4e25", "1.5", "99999999999999999999999", "-3", "true"}) {
      std::string text = good.substr(0, good.rfind(",\n\"digest\""));
      const size_t at = text.find(':', text.find(cat("\"", key, "\":"))) + 1;
      text.replace(at, text.find_first_of(",}\n", at) - at, cat(" ", number));
      text = cat(text, ",\n\"digest\": \"", digest_of(text), "\"}\n");
      try {
        parse_manifest(text, "m.json");
        ADD_FAILURE() << key << " = " << number << " was accepted";
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(cat(key, " is ")), std::string::npos) << e.what();
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
