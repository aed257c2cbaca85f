#include "io/tokenizer/write_json.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/text.h"

namespace shoestring {
namespace {

// Whatever decides ids is in the file: the hashes are equal.
TEST(WriteJson, ReadsBackToTheSameTokenizer) {
  const std::string data = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer";
  int read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() != ".json" && path.extension() != ".tiktoken") continue;
    std::optional<Tokenizer> tokenizer;
    try {
      tokenizer = Tokenizer::load(path);
    } catch (const std::exception&) {
      continue;  // a file of something else
    }
    ++read;
    const Tokenizer again = Tokenizer::from_json(tokenizer_json(*tokenizer), "written");
    EXPECT_EQ(again.hash(), tokenizer->hash()) << path;
    const std::string text = "Hello there,  world 12345!\n\tnaïve 日本語 <|endoftext|> end";
    EXPECT_EQ(again.encode(text), tokenizer->encode(text)) << path;
  }
  EXPECT_GE(read, 4);
}

}  // namespace
}  // namespace shoestring
