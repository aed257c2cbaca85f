#include "io/tokenizer/encoder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "tests/io/tokenizer/random_text.h"

namespace shoestring {
namespace {

const std::string data_folder = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/";

class GoldenTest : public testing::TestWithParam<const char*> {};

// Ids of the reference library on texts of all scripts and on random ones.
TEST_P(GoldenTest, IdsEqualTheReferenceLibrary) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + GetParam() + ".json");
  const bool keeps_text = !std::set<std::string>{"qwen2", "added"}.contains(GetParam());
  Encoder cached(tokenizer, 64);  // small: entries are replaced all the time
  std::ifstream file(data_folder + GetParam() + ".ids.jsonl");
  std::string line;
  int texts = 0;
  for (; std::getline(file, line); ++texts) {
    const auto entry = nlohmann::json::parse(line);
    const auto text = entry[0].get<std::string>();
    const auto expected = entry[1].get<std::vector<int32_t>>();
    ASSERT_EQ(tokenizer.encode(text), expected) << entry[0];
    std::vector<int32_t> ids = {-7};
    cached.encode(text, ids);
    ids.erase(ids.begin());  // appended
    ASSERT_EQ(ids, expected) << entry[0];
    if (keeps_text) {
      ASSERT_EQ(tokenizer.decode(ids), text);
    }
  }
  EXPECT_GT(texts, 500);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTest,
                         testing::Values("gpt2", "llama3", "qwen2", "deepseek", "added", "digits"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EncoderTest, AnyBytesComeBack) {
  std::mt19937 random(6);
  for (const char* kind : {"gpt2", "llama3", "deepseek", "digits"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder + kind + ".json");
    Encoder encoder(tokenizer);
    for (int i = 0; i < 3000; ++i) {
      std::string text = random_text(random, 20);
      for (int k = 0; k < i % 6; ++k) {
        text[random() % text.size()] = static_cast<char>(random());
      }
      std::vector<int32_t> ids;
      encoder.encode(text, ids);
      ASSERT_EQ(tokenizer.decode(ids), text);
    }
  }
}

TEST(EncoderTest, SpecialTokensCanBeText) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + "gpt2.json");
  const int32_t end = *tokenizer.end_of_text_id();
  EXPECT_EQ(tokenizer.encode("<|endoftext|>"), std::vector<int32_t>{end});
  const auto as_text = tokenizer.encode("a<|endoftext|>b", {.special_as_text = true});
  EXPECT_EQ(std::count(as_text.begin(), as_text.end(), end), 0);
  EXPECT_EQ(tokenizer.decode(as_text), "a<|endoftext|>b");
}

TEST(EncoderTest, BatchesEqualSingleTexts) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + "deepseek.json");
  std::mt19937 random(7);
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) {
    texts.push_back(random_text(random, i));
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  for (const int threads : {1, 3}) {
    BatchEncoder encoder(tokenizer, threads);
    std::vector<std::vector<int32_t>> ids(2, {9});
    encoder.encode(views, ids);
    ASSERT_EQ(ids.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_EQ(ids[i], tokenizer.encode(texts[i]));
    }
  }
}

// One letter only: a text with any other byte has no ids.
TEST(EncoderTest, BytesWithoutTokenAreAnError) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
                           R"("model":{"type":"BPE","vocab":{"a":0,"aa":1},"merges":["a a"]}})",
                           "tiny");
  EXPECT_EQ(tokenizer.encode("aaa"), (std::vector<int32_t>{1, 0}));
  EXPECT_THROW(tokenizer.encode("ab"), Error);
  BatchEncoder batch(tokenizer, 2);
  std::vector<std::vector<int32_t>> ids;
  EXPECT_THROW(batch.encode(std::vector<std::string_view>(50, "b"), ids), Error);
}

TEST(EncoderTest, PrefixSpace) {
  const std::string json =
      R"({"pre_tokenizer":{"type":"ByteLevel"},"added_tokens":[{"id":9,"content":"<x>"}],)"
      R"("model":{"type":"BPE","vocab":{"a":0,"Ġ":1,"Ġa":2},"merges":[["Ġ","a"]]}})";
  const Tokenizer tokenizer = Tokenizer::from_json(json, "tiny");
  EXPECT_EQ(tokenizer.encode("a"), (std::vector<int32_t>{2}));
  EXPECT_EQ(tokenizer.encode(" a<x>a"), (std::vector<int32_t>{2, 9, 2}));
}

}  // namespace
}  // namespace shoestring
