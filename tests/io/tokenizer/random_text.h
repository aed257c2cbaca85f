#pragma once
// Random texts over all scripts for tests that compare a fast path with its slow twin.

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "io/tokenizer/unicode.h"

namespace shoestring {

// About `length` characters: ASCII, blanks of all kinds, digits, contractions, and code points of
// all planes, those newer than the libraries' tables included.
inline std::string random_text(std::mt19937& random, int length) {
  static constexpr std::string_view pieces[] = {
      "'s", "'LL", "'\xC5\xBF", " ", "  ",           "\n",           "\r\n",         "\t",
      "1",  "12",  "the",       "!", "\xC2\xA0",     "\xE2\x80\xA8", "\xE3\x80\x80", "\xE1\xA0\x8E",
      "a",  "B",   "?\n",       "'", "\xE4\xB8\xAD", "\xE3\x81\xAE", "\xE3\x83\xBB", "\xCC\x81"};
  static constexpr std::pair<uint32_t, uint32_t> ranges[] = {
      {0x20, 0x7E},       {0xA0, 0x52F},      {0x590, 0xFFF},     {0x1C80, 0x2427},
      {0x2FF0, 0x31FF},   {0x4E00, 0x9FFF},   {0xA7C0, 0xA7FF},   {0x10D40, 0x10EFF},
      {0x11100, 0x11FFF}, {0x13400, 0x14500}, {0x1CC00, 0x1D300}, {0x1E000, 0x1E6FF},
      {0x1F600, 0x1FBFF}, {0, 0x10FFFF}};
  std::string text;
  for (int i = 0; i < length; ++i) {
    if (random() % 2 == 0) {
      text += pieces[random() % std::size(pieces)];
      continue;
    }
    const auto& [first, last] = ranges[random() % std::size(ranges)];
    const uint32_t code = first + static_cast<uint32_t>(random()) % (last - first + 1);
    if (code < 0xD800 || code > 0xDFFF) {
      append_utf8(code, text);
    }
  }
  return text;
}

}  // namespace shoestring
