#include "io/tokenizer/scanners.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/io/tokenizer/random_text.h"

namespace shoestring {
namespace {

std::vector<std::string> pieces(const SplitStep& step, std::string_view text) {
  Regex::Scratch scratch;
  std::vector<std::string> out;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const char* const next = step.next(text.data(), at, end, scratch);
    if (next <= at || next > end) {
      ADD_FAILURE() << "a piece is empty or too long";
      break;
    }
    out.emplace_back(at, next);
    at = next;
  }
  return out;
}

TEST(ScannersTest, EqualTheRegularExpressions) {
  const std::string_view known[] = {patterns::gpt2,         patterns::llama3,
                                    patterns::qwen2,        patterns::deepseek_numbers,
                                    patterns::deepseek_cjk, patterns::deepseek_words};
  for (const std::string_view pattern : known) {
    const SplitStep fast = SplitStep::from_pattern(pattern);
    const SplitStep slow = SplitStep::from_pattern(pattern, false);
    ASSERT_TRUE(fast.has_scanner());
    ASSERT_FALSE(slow.has_scanner());
    std::mt19937 random(3);
    for (int i = 0; i < 6000; ++i) {
      const std::string text = random_text(random, 1 + i % 30);
      ASSERT_EQ(pieces(fast, text), pieces(slow, text)) << pattern << " on " << text;
    }
  }
}

TEST(ScannersTest, KnowPatternsWithRealLineEnds) {
  std::string pattern(patterns::llama3);
  for (const auto& [escape, character] : {std::pair("\\r", "\r"), std::pair("\\n", "\n")}) {
    for (size_t at = pattern.find(escape); at != std::string::npos; at = pattern.find(escape)) {
      pattern.replace(at, 2, character);
    }
  }
  EXPECT_TRUE(SplitStep::from_pattern(pattern).has_scanner());
}

TEST(ScannersTest, CutAnyBytesWithoutLoss) {
  std::mt19937 random(4);
  for (const std::string_view pattern :
       {patterns::gpt2, patterns::llama3, patterns::deepseek_numbers, patterns::deepseek_cjk,
        patterns::deepseek_words, std::string_view(R"(\p{L}+)")}) {
    const SplitStep step = SplitStep::from_pattern(pattern);
    for (int i = 0; i < 2000; ++i) {
      std::string bytes(random() % 40, ' ');
      for (char& c : bytes) {
        c = static_cast<char>(random() % 3 == 0 ? random() : 0xE0 | random() % 32);
      }
      std::string joined;
      for (const std::string& piece : pieces(step, bytes)) {
        joined += piece;
      }
      ASSERT_EQ(joined, bytes);
    }
  }
}

TEST(ScannersTest, Digits) {
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(pieces(SplitStep::digits(true), "ab12c"), (Pieces{"ab", "1", "2", "c"}));
  EXPECT_EQ(pieces(SplitStep::digits(false), "ab12c"), (Pieces{"ab", "12", "c"}));
  // A digit of Unicode 17 that the patterns' \p{N} does not know.
  const std::string newer = "\xF0\x91\xB7\xA0";
  EXPECT_EQ(pieces(SplitStep::digits(true), "a" + newer), (Pieces{"a", newer}));
}

TEST(ScannersTest, LongRunsTakeLinearTime) {
  const std::string text = std::string(5'000'000, ' ') + "x" + std::string(5'000'000, '\n') + "y";
  for (const std::string_view pattern :
       {patterns::gpt2, patterns::llama3, patterns::deepseek_words}) {
    EXPECT_LE(pieces(SplitStep::from_pattern(pattern), text).size(), 6u);
  }
}

}  // namespace
}  // namespace shoestring
