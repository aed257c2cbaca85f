#include "io/tokenizer/regex.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

std::string first_match(const char* pattern, std::string_view text, size_t from = 0) {
  Regex::Scratch scratch;
  const auto found = Regex(pattern).find(text, from, scratch);
  return found ? std::string(text.substr(found->first, found->second - found->first)) : "(none)";
}

TEST(RegexTest, ReplacesTheClassesThatDiffer) {
  EXPECT_EQ(to_pcre2_pattern(R"(a\.[^\r\n]\d)"), R"(a\.[^\r\n]\d)");
  EXPECT_EQ(to_pcre2_pattern(R"(\p{Lu}[\p{Lu}])"), R"(\p{Lu}[\p{Lu}])");
  EXPECT_EQ(to_pcre2_pattern(R"(\s)").substr(0, 12), R"([\x{9}-\x{D})");
  EXPECT_EQ(to_pcre2_pattern(R"(\S)").substr(0, 3), R"([^\)");
  EXPECT_EQ(to_pcre2_pattern(R"([\p{M}a])").substr(0, 6), R"([\p{M})");
}

TEST(RegexTest, FollowsTheReferenceEngine) {
  EXPECT_EQ(first_match(R"(\s+)", "a\xE1\xA0\x8E\xC2\xA0z"), "\xC2\xA0");  // not U+180E
  EXPECT_EQ(first_match(R"([\S]+)", "  \xE1\xA0\x8E "), "\xE1\xA0\x8E");
  EXPECT_EQ(first_match(R"(\p{L}+)", ".\xF0\x91\xBC\x82."), "\xF0\x91\xBC\x82");  // Unicode 15
  EXPECT_EQ(first_match(R"(\P{L}+)", "a\xF0\x91\xBC\x82."), ".");
  EXPECT_EQ(first_match(R"(\p{^L}+)", "ab."), ".");
  EXPECT_EQ(first_match(R"((?i:'s))", "'\xC5\xBF"), "'\xC5\xBF");
  EXPECT_EQ(first_match(R"(a$)", "ba\nc"), "a");  // lines, not texts
  EXPECT_EQ(first_match(R"(x*)", "aaxx"), "xx");  // empty matches are none
  EXPECT_EQ(first_match(R"([[:alpha:]]+)", "1ab"), "ab");
  EXPECT_EQ(first_match(R"(.)", "\xFF\xFE!"), "!");  // stray bytes match nothing
  EXPECT_EQ(first_match(R"(b)", "abb", 2), "b");
}

TEST(RegexTest, RefusesWhatCannotBeTranslatedOrCompiled) {
  for (const char* bad : {"(", "[a", "a{2,1}", R"(\p{)", R"(\p{Nonsense})", "[a&&b]", "[a[b]]",
                          R"(\p{N}{1,3}+)", R"([\P{L}])", R"(\h)", "[[:alpha"}) {
    EXPECT_THROW(Regex{bad}, Error) << bad;
  }
}

TEST(RegexTest, LongRunsOfBlanks) {
  const std::string text = std::string(2'000'000, ' ') + "x";
  Regex::Scratch scratch;
  const auto found = Regex(R"(\s+(?!\S)|\s+)").find(text, 0, scratch);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->second, text.size() - 2);
}

}  // namespace
}  // namespace shoestring
