#include "io/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/check.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

const std::string data_folder = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/";

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST(TokenizerTest, TokensAndIds) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + "llama3.json");
  EXPECT_EQ(tokenizer.vocabulary_size(), 1003);
  EXPECT_EQ(tokenizer.bos_id(), 1000);  // from its TemplateProcessing
  EXPECT_EQ(tokenizer.eos_id(), 1001);
  EXPECT_EQ(tokenizer.end_of_text_id(), 1001);
  EXPECT_EQ(tokenizer.token_to_id("<|eot_id|>"), 1002);
  EXPECT_TRUE(tokenizer.is_special(1002));
  EXPECT_FALSE(tokenizer.is_special(300));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_FALSE(tokenizer.has_id(1003));
  const int32_t the = tokenizer.token_to_id(" the").value();
  EXPECT_EQ(tokenizer.id_to_bytes(the), " the");
  EXPECT_EQ(tokenizer.token_to_id("no such token"), std::nullopt);
  // Bytes of a text = bytes of its tokens: what bits per byte needs.
  size_t bytes = 0;
  for (const int32_t id : tokenizer.encode("Größe in the night")) {
    bytes += tokenizer.id_to_bytes(id).size();
  }
  EXPECT_EQ(bytes, std::string("Größe in the night").size());
  for (const int32_t bad : {-1, 1003, INT32_MAX}) {
    EXPECT_THROW(tokenizer.id_to_bytes(bad), Error);
    EXPECT_THROW(tokenizer.decode(std::vector{the, bad}), Error);
  }
}

TEST(TokenizerTest, FoldersMayNameTheirTokens) {
  const fs::path folder = fs::path(testing::TempDir()) / "tokenizer_folder";
  fs::remove_all(folder);
  fs::create_directories(folder);
  EXPECT_THROW(Tokenizer::load(folder), Error);
  write(folder / "tokenizer.json", read(data_folder + "qwen2.json"));
  EXPECT_EQ(Tokenizer::load(folder).eos_id(), 1000);
  write(folder / "tokenizer_config.json",
        R"({"bos_token":null,"eos_token":{"content":"<|im_end|>"}})");
  EXPECT_EQ(Tokenizer::load(folder).eos_id(), 1002);
  EXPECT_EQ(Tokenizer::load(folder).end_of_text_id(), 1000);
  EXPECT_EQ(Tokenizer::load(folder).bos_id(), std::nullopt);
  write(folder / "tokenizer_config.json", "{");
  EXPECT_THROW(Tokenizer::load(folder), Error);
}

TEST(TokenizerTest, HashesFollowWhatDecidesIds) {
  const std::string json = read(data_folder + "gpt2.json");
  const std::string hash = Tokenizer::from_json(json, "a").hash();
  EXPECT_EQ(hash.size(), 32u);
  EXPECT_EQ(hash, Tokenizer::from_json(json, "b").hash());
  const auto changed = [&](std::string_view from, std::string_view to) {
    std::string other = json;
    const size_t at = other.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    other.replace(at, from.size(), to);
    return Tokenizer::from_json(other, "c").hash();
  };
  EXPECT_EQ(hash, changed(R"("version":"1.0")", R"("version":"1.1")"));
  EXPECT_NE(hash, changed(R"("ignore_merges":false)", R"("ignore_merges":true)"));
  EXPECT_NE(hash, changed(R"("content":"<|endoftext|>")", R"("content":"<|endofteXt|>")"));
  EXPECT_NE(hash, changed(R"("lstrip":false)", R"("lstrip":true)"));
  EXPECT_NE(hash, changed(R"("normalizer":null)", R"("normalizer":{"type":"NFC"})"));
  EXPECT_NE(hash, changed(R"("!":0)", R"("!":99999)"));
}

TEST(TokenizerTest, MissingFiles) {
  EXPECT_THROW(Tokenizer::load("/nowhere/tokenizer.json"), Error);
  EXPECT_THROW(Tokenizer::load(data_folder + "corpus.txt"), Error);
}

TEST(StreamDecoderTest, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + "gpt2.json");
  const std::string text = "a\U0001F600é\xFF中\xF0\x9F";
  StreamDecoder decoder(tokenizer);
  std::string joined;
  for (const char c : text) {
    const std::string part = decoder.push(tokenizer.token_to_id({&c, 1}).value());
    // Never the inside of a character: each output is what is finished so far.
    EXPECT_TRUE(part.empty() || part == "a" || part == "\U0001F600" || part == "é" ||
                part == "\xFF" || part == "中")
        << part;
    joined += part;
  }
  EXPECT_EQ(joined + decoder.finish(), text);
  EXPECT_EQ(decoder.finish(), "");
}

// Characters made of byte tokens arrive whole; one blank goes where a text begins, none where the
// ids go on with a text.
TEST(StreamDecoderTest, CharacterLevelPieces) {
  const Tokenizer tokenizer = Tokenizer::load(data_folder + "chars/llama2.json");
  const std::string text = " the \U0001F999\u4e42 the";
  const std::vector<int32_t> ids = tokenizer.encode(text);
  for (const bool begins : {true, false}) {
    StreamDecoder decoder(tokenizer, begins);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string part = decoder.push(id);
      EXPECT_EQ(part.find('\xF0') != std::string::npos, part == "\U0001F999") << part;
      joined += part;
    }
    EXPECT_EQ(joined + decoder.finish(), begins ? text : " " + text);
  }
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_EQ(tokenizer.token_to_id(" the").value(), tokenizer.encode("the")[0]);
  EXPECT_EQ(tokenizer.id_to_bytes(tokenizer.token_to_id("\xF0").value()), "\xF0");
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.end_of_text_id(), 2);
}

// A piece that goes on with a document gets no blank in front.
TEST(TokenizerTest, PiecesOfADocument) {
  for (const char* kind : {"llama2", "mistral3", "flags_always_split"}) {
    const Tokenizer tokenizer = Tokenizer::load(data_folder + "chars/" + kind + ".json");
    std::vector<int32_t> ids = tokenizer.encode("the night of the");
    const auto add = [&](const char* more) {
      const auto next = tokenizer.encode(more, {.continues = true});
      ids.insert(ids.end(), next.begin(), next.end());
    };
    add(" night");
    EXPECT_EQ(ids, tokenizer.encode("the night of the night")) << kind;
    add("\nand");
    EXPECT_EQ(tokenizer.decode(ids), "the night of the night\nand") << kind;
  }
}

}  // namespace
}  // namespace shoestring
