#include "io/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include "core/text.h"

namespace shoestring {
namespace {

// Tokens as "<id>", the rest as it is, between bars.
std::string split(const AddedTokenMatcher& matcher, std::string_view text, bool as_text = false) {
  std::string out;
  matcher.split(
      text, as_text, [&](std::string_view rest) { append(out, "|", rest); },
      [&](int32_t id) { append(out, "|<", id, ">"); });
  return out;
}

AddedTokenMatcher matcher_of(const std::vector<AddedToken>& tokens) {
  AddedTokenMatcher matcher;
  for (const AddedToken& token : tokens) {
    matcher.add(token, token.content);
  }
  return matcher;
}

TEST(AddedTokensTest, LeftmostThenLongest) {
  const auto matcher = matcher_of({{.id = 1, .content = "ab"},
                                   {.id = 2, .content = "abcd"},
                                   {.id = 3, .content = "bcde"},
                                   {.id = 4, .content = "c"}});
  EXPECT_EQ(split(matcher, "xabcde"), "|x|<2>|e");
  EXPECT_EQ(split(matcher, "abcabab"), "|<1>|<4>|<1>|<1>");
  EXPECT_EQ(split(matcher, "bcd"), "|b|<4>|d");
  EXPECT_EQ(split(matcher, ""), "");
  EXPECT_EQ(split(AddedTokenMatcher(), "abc"), "|abc");
}

TEST(AddedTokensTest, Strips) {
  const auto matcher = matcher_of(
      {{.id = 1, .content = "[L]", .lstrip = true}, {.id = 2, .content = "[R]", .rstrip = true}});
  EXPECT_EQ(split(matcher, "a \n\u3000[L] b"), "|a|<1>| b");
  EXPECT_EQ(split(matcher, "a [R] \t\u00a0b"), "|a |<2>|b");
  // The blanks between belong to the first.
  EXPECT_EQ(split(matcher, "[R]  [L]"), "|<2>|<1>");
  EXPECT_EQ(split(matcher, "  [L]"), "|<1>");
}

TEST(AddedTokensTest, SingleWords) {
  const auto matcher = matcher_of({{.id = 1, .content = "word", .single_word = true}});
  EXPECT_EQ(split(matcher, "word words sword \u00e9word word\u00e9 word_ (word)"),
            "|<1>| words sword \u00e9word word\u00e9 word_ (|<1>|)");
}

TEST(AddedTokensTest, SpecialOnesCanBeText) {
  const auto matcher =
      matcher_of({{.id = 1, .content = "<s>", .special = true}, {.id = 2, .content = "<t>"}});
  EXPECT_EQ(split(matcher, "a<s><t>b"), "|a|<1>|<2>|b");
  EXPECT_EQ(split(matcher, "a<s><t>b", true), "|a<s>|<2>|b");
}

}  // namespace
}  // namespace shoestring
