#include "io/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "io/tokenizer/regex.h"

namespace shoestring {
namespace {

// The table against the regular expression engine, which has its own Unicode data.
TEST(UnicodeTest, ClassesOfAllCodePointsEqualTheEngines) {
  const std::pair<const char*, uint8_t> classes[] = {
      {R"(\p{L})", char_bits::letter}, {R"(\p{N})", char_bits::number},
      {R"(\p{M})", char_bits::mark},   {R"(\p{P})", char_bits::punctuation},
      {R"(\p{S})", char_bits::symbol}, {R"(\s)", char_bits::space},
  };
  for (const auto& [pattern, bit] : classes) {
    const Regex regex(pattern);
    Regex::Scratch scratch;
    int differing = 0;
    for (uint32_t code = 0; code < invalid_code; ++code) {
      if (code >= 0xD800 && code < 0xE000) {
        continue;
      }
      std::string text;
      append_utf8(code, text);
      const bool matches = regex.find(text, 0, scratch).has_value();
      if (matches != ((CharTable::get().bits(code) & bit) != 0) && ++differing <= 5) {
        ADD_FAILURE() << pattern << " differs for U+" << std::hex << code;
      }
    }
    EXPECT_EQ(differing, 0) << pattern;
  }
}

TEST(UnicodeTest, AsciiTableEqualsTheWholeTable) {
  for (uint32_t code = 0; code < 128; ++code) {
    EXPECT_EQ(ascii_bits[code], CharTable::get().bits(code)) << code;
  }
}

TEST(UnicodeTest, DecodesEveryCodePointBothWays) {
  for (uint32_t code = 0; code < invalid_code; ++code) {
    std::string text = "x";
    append_utf8(code, text);
    const char* const end = text.data() + text.size();
    if (code >= 0xD800 && code < 0xE000) {
      EXPECT_EQ(decode_char(text.data() + 1, end).code, invalid_code);
      continue;
    }
    const Char c = decode_char(text.data() + 1, end);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.length, text.size() - 1);
    ASSERT_EQ(decode_char_before(text.data(), end).code, code);
    // Cut short, it is no character.
    if (c.length > 1) {
      ASSERT_EQ(decode_char(text.data() + 1, end - 1).code, invalid_code);
      ASSERT_EQ(unfinished_suffix({text.data(), text.size() - 1}), text.size() - 2);
    }
    ASSERT_EQ(unfinished_suffix(text), 0u);
  }
}

TEST(UnicodeTest, RefusesMalformedBytes) {
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE4\xBD"}) {
    const std::string text = bad;
    const Char c = decode_char(text.data(), text.data() + text.size());
    EXPECT_EQ(c.code, invalid_code);
    EXPECT_EQ(c.length, 1u);
  }
  EXPECT_EQ(unfinished_suffix("a\xED\xA0"), 0u);
  EXPECT_EQ(unfinished_suffix("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(unfinished_suffix("a\xFF"), 0u);
}

TEST(UnicodeTest, WordCharacters) {
  for (const uint32_t code : {uint32_t{'a'}, uint32_t{'_'}, uint32_t{'7'}, 0xE9u, 0x301u, 0x2160u,
                              0x24B6u, 0x203Fu, 0x200Du, 0x4E2Du}) {
    EXPECT_TRUE(CharTable::get().bits(code) & char_bits::word) << code;
  }
  for (const uint32_t code : {uint32_t{' '}, uint32_t{'-'}, 0xB2u, 0x2014u, 0x1F600u}) {
    EXPECT_FALSE(CharTable::get().bits(code) & char_bits::word) << code;
  }
}

}  // namespace
}  // namespace shoestring
