#include "io/tokenizer/char_level.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tokenizer/encoder.h"
#include "io/tokenizer/tokenizer_data.h"
#include "io/tokenizer/unicode.h"
#include "tests/io/tokenizer/random_text.h"

namespace shoestring {
namespace {

using nlohmann::json;

const std::string data_folder = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/chars/";

std::vector<json> golden_texts(const std::string& kind) {
  std::ifstream file(data_folder + kind + ".ids.jsonl");
  std::vector<json> texts;
  for (std::string line; std::getline(file, line);) texts.push_back(json::parse(line));
  return texts;
}

TEST(CharLevelTest, MarksAndNames) {
  EXPECT_EQ(marks_for_blanks("a  b "), "a▁▁b▁");
  EXPECT_EQ(blanks_for_marks("▁a▁ b\xE2\x96"), " a  b\xE2\x96");
  EXPECT_EQ(byte_of_name("<0x0A>"), 10);
  EXPECT_EQ(byte_of_name("<0xff>"), 255);
  for (const char* other : {"", "<0x0A", "<0x0G>", "<0x00A>", "0x0A", "<0X0A>", "<0x 1>"}) {
    EXPECT_EQ(byte_of_name(other), std::nullopt) << other;
  }
}

class CharGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(CharGoldenTest, IdsAndTextsEqualTheReferenceLibrary) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + GetParam() + ".json");
  ASSERT_TRUE(tokenizer.data().chars);
  Encoder cached(tokenizer, 64);
  const std::vector<json> texts = golden_texts(GetParam());
  EXPECT_GT(texts.size(), 200u);
  for (const json& entry : texts) {
    const auto text = entry["text"].get<std::string>();
    const auto expected = entry["ids"].get<std::vector<int32_t>>();
    ASSERT_EQ(tokenizer.encode(text), expected) << entry["text"];
    std::vector<int32_t> ids;
    cached.encode(text, ids);
    ASSERT_EQ(ids, expected) << entry["text"];
    ASSERT_EQ(tokenizer.decode(ids), entry.value("decoded", text)) << entry["text"];
    const auto as_text = entry.contains("as_text") ? entry["as_text"] : entry["ids"];
    ASSERT_EQ(tokenizer.encode(text, {.special_as_text = true}),
              as_text.get<std::vector<int32_t>>())
        << entry["text"];
  }
}

// A megabyte in one word: with blanks and special tokens, without any blank, and blanks only. The
// texts are those of make_char_tokenizer_goldens.py, cut at 1,000,000 characters.
TEST_P(CharGoldenTest, LongTexts) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + GetParam() + ".json");
  std::string samples;
  for (const json& entry : golden_texts(GetParam())) samples += entry["text"].get<std::string>();
  std::string dense;
  for (const char c : blanks_for_marks(samples)) {
    if (c != ' ') dense += c;
  }
  const auto repeated = [](const std::string& text) {
    std::string out;
    for (size_t at = 0, count = 0; count < 1'000'000; ++count) {
      const Char c = decode_char(text.data() + at, text.data() + text.size());
      out.append(text, at, c.length);
      at = (at + c.length) % text.size();
    }
    return out;
  };
  std::ifstream file(data_folder + "long.json");
  const json expected = json::parse(file)[GetParam()];
  const std::pair<const char*, std::string> texts[] = {
      {"mixed", repeated(samples)}, {"dense", repeated(dense)}, {"blanks", repeated(" ")}};
  for (const auto& [name, text] : texts) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    uint64_t sum = 0;
    for (const int32_t id : ids) sum = sum * 31 + static_cast<uint64_t>(id);
    EXPECT_EQ(json::array({ids.size(), std::to_string(sum)}), expected[name]) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, CharGoldenTest,
                         testing::Values("llama2", "mistral3", "flags_prepend",
                                         "flags_always_split", "flags_first_whole",
                                         "flags_never_whole", "flags_never_split", "gemma",
                                         "unknown", "some_bytes", "whole_pieces"),
                         [](const auto& info) { return std::string(info.param); });

// Cutting before blanks is only a short cut: without it, the ids are the same.
TEST(CharLevelTest, PiecesAreMergedAsTheWhole) {
  std::mt19937 random(4);
  for (const char* kind : {"llama2", "gemma", "flags_never_whole", "some_bytes", "whole_pieces"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder + kind + ".json");
    TokenizerData data = tokenizer.data();
    ASSERT_TRUE(data.chars->cuts);
    data.chars->cuts = false;
    const Tokenizer uncut(std::make_shared<const TokenizerData>(std::move(data)));
    for (int i = 0; i < 300; ++i) {
      std::string text = random_text(random, 30);
      for (int k = 0; k < i % 4; ++k) text.insert(random() % text.size(), "  the ");
      ASSERT_EQ(tokenizer.encode(text), uncut.encode(text)) << kind << ": " << text;
    }
  }
}

TEST(CharLevelTest, CutsWhereNoMergeJoinsABlank) {
  const auto pieces_of = [](const CharLevel& chars, std::string_view text) {
    std::string out;
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at < end;) {
      const char* const next = chars.next_piece(at, end);
      out += std::string(at, next) + "|";
      at = next;
    }
    return out;
  };
  const Tokenizer plain = Tokenizer::load(data_folder + "llama2.json");
  EXPECT_EQ(pieces_of(*plain.data().chars, " a  b é c"), " a|  b| é| c|");  // blanks join
  CharLevel chars;
  EXPECT_EQ(pieces_of(chars, "a b"), "a b|");
  chars.split = true;
  EXPECT_EQ(pieces_of(chars, " a  b "), " a| | b| |");
}

// Bytes that are no text come back, by their tokens.
TEST(CharLevelTest, AnyBytesComeBack) {
  std::mt19937 random(6);
  for (const char* kind : {"llama2", "gemma"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder + kind + ".json");
    for (int i = 0; i < 1000; ++i) {
      std::string text = random_text(random, 20);
      for (int k = 0; k < i % 6; ++k) text[random() % text.size()] = static_cast<char>(random());
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, {.special_as_text = true})),
                blanks_for_marks(text));
    }
  }
}

TEST(CharLevelTest, CharactersWithoutAnyTokenAreAnError) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"never"},)"
      R"("decoder":{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"▁":1},"merges":[]}})",
      "tiny");
  EXPECT_EQ(tokenizer.encode("a a"), (std::vector<int32_t>{0, 1, 0}));
  for (const std::string text : {"aé", "a\xFF"}) {
    try {
      tokenizer.encode(text);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      const char* what = text == "a\xFF" ? "byte 255" : "U+00E9";
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  }
}

// Merges of bytes, or of the unknown token, forbid cuts.
TEST(CharLevelTest, MergesOfBytesForbidCuts) {
  json root = json::parse(std::ifstream(data_folder + "some_bytes.json"));
  EXPECT_TRUE(Tokenizer::from_json(root.dump(), "a").data().chars->cuts);
  root["model"]["vocab"]["<0x01>▁"] = 2000;
  root["model"]["merges"].push_back({"<0x01>", "▁"});
  const Tokenizer tokenizer = Tokenizer::from_json(root.dump(), "b");
  EXPECT_FALSE(tokenizer.data().chars->cuts);
  EXPECT_EQ(tokenizer.encode("\x01 ").back(), 2000);
}

}  // namespace
}  // namespace shoestring
