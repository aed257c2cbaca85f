#include "io/tokenizer/nfc.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include "io/tokenizer/unicode.h"
#include "utf8proc.h"

namespace shoestring {
namespace {

std::string utf8(uint32_t code) {
  std::string out;
  append_utf8(code, out);
  return out;
}

// Every code point that the reference library changes, and no other.
TEST(NfcTest, SingleCodePointsEqualTheReferenceLibrary) {
  std::ifstream file(SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/nfc.txt");
  std::vector<std::string> expected(invalid_code);
  std::string line;
  int changed = 0;
  while (std::getline(file, line)) {
    std::istringstream codes(line);
    uint32_t code = 0, part = 0;
    codes >> std::hex >> code;
    while (codes >> part) {
      append_utf8(part, expected[code]);
    }
    ++changed;
  }
  ASSERT_GT(changed, 1000);
  for (uint32_t code = 0; code < invalid_code; ++code) {
    if (code >= 0xD800 && code < 0xE000) {
      continue;
    }
    const std::string text = utf8(code);
    ASSERT_EQ(normalize_nfc(text), expected[code].empty() ? text : expected[code])
        << std::hex << code;
  }
}

// The library on the whole text is the slow twin of our cutting into spans.
TEST(NfcTest, EqualsTheLibraryOnRandomTexts) {
  std::mt19937 random(1);
  const std::pair<uint32_t, uint32_t> ranges[] = {
      {0x20, 0x7E},     {0xC0, 0x17F},      {0x300, 0x36F},    {0x1100, 0x11FF},
      {0xAC00, 0xAFFF}, {0x900, 0xDFF},     {0x1E00, 0x1FFF},  {0x3040, 0x30FF},
      {0xF900, 0xFAFF}, {0x11000, 0x114FF}, {0x1D100, 0x1D1FF}};
  int composed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    const int length = 1 + static_cast<int>(random() % 12);
    for (int k = 0; k < length; ++k) {
      const auto& [first, last] = ranges[random() % std::size(ranges)];
      const uint32_t code = first + static_cast<uint32_t>(random()) % (last - first + 1);
      const bool known = std::none_of(
          newer_than_nfc().begin(), newer_than_nfc().end(),
          [&](const CodeRange& newer) { return newer.first <= code && code <= newer.last; });
      append_utf8(known ? code : 0x301, text);
    }
    utf8proc_uint8_t* whole = nullptr;
    const auto size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &whole,
                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    ASSERT_GE(size, 0);
    const std::string expected(reinterpret_cast<const char*>(whole), static_cast<size_t>(size));
    std::free(whole);
    ASSERT_EQ(normalize_nfc(text), expected);
    if (is_plainly_nfc(text)) {
      ASSERT_EQ(text, expected);
    }
    composed += text != expected;
  }
  EXPECT_GT(composed, 1000);
}

// Computed with the reference library: it takes U+0EBA, a mark since Unicode 12, for a letter.
TEST(NfcTest, NewerMarksAreLetters) {
  EXPECT_EQ(normalize_nfc("e\u0eba\u0301\u0323"), "e\u0eba\u0323\u0301");
  EXPECT_EQ(normalize_nfc("e\u0301\u0eba\u0334"), "\u00e9\u0eba\u0334");
  EXPECT_EQ(normalize_nfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

TEST(NfcTest, KeepsStrayBytes) {
  EXPECT_EQ(normalize_nfc("e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(normalize_nfc("e\xFF\xCC\x81 e\xCC\x81\xCC"), "e\xFF\xCC\x81 \xC3\xA9\xCC");
  EXPECT_TRUE(is_plainly_nfc("plain \xC3\xA9 \xE4\xB8\xAD \xFF"));
  EXPECT_FALSE(is_plainly_nfc("e\xCC\x81"));
}

}  // namespace
}  // namespace shoestring
