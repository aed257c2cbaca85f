#pragma once
// Characters as the pre-tokenizer patterns see them: strict UTF-8 decoding and one byte of class
// bits per code point. The classes are those of Unicode 16, which the patterns' reference engine
// uses: utf8proc's table plus the code points assigned since (`newer_code_points`).

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

namespace char_bits {
inline constexpr uint8_t letter = 1;       // \p{L}
inline constexpr uint8_t number = 2;       // \p{N}
inline constexpr uint8_t mark = 4;         // \p{M}
inline constexpr uint8_t punctuation = 8;  // \p{P}
inline constexpr uint8_t symbol = 16;      // \p{S}
inline constexpr uint8_t space = 32;       // White_Space: 25 code points
inline constexpr uint8_t word = 64;        // \w: alphabetic, marks, decimal digits, connectors
// May change, or may join the character before it, when a text is put into form NFC.
inline constexpr uint8_t nfc_unsafe = 128;
}  // namespace char_bits

struct CodeRange {
  uint32_t first, last;
};

// Code points of a general category ('L', 'N', 'M', 'P' or 'S') assigned in Unicode 15.0 to 16.0.
std::span<const CodeRange> newer_code_points(char category);
// The 25 code points of White_Space, ascending.
std::span<const CodeRange> white_space();

// Combining characters that are younger than the reference library's NFC (Unicode 9): to it they
// are plain characters, which neither move nor join anything.
std::span<const CodeRange> newer_than_nfc();

// What stands for a byte that is no part of well-formed UTF-8: such a byte is one character of no
// class. (Libraries whose strings are Unicode never see one; ours keeps bytes exactly.)
inline constexpr uint32_t invalid_code = 0x110000;

// The same bits for ASCII, known to the compiler: nearly all lookups end here.
constexpr std::array<uint8_t, 128> make_ascii_bits() {
  using namespace char_bits;
  std::array<uint8_t, 128> bits{};
  for (unsigned c = 0; c < 128; ++c) {
    const auto byte = static_cast<char>(c);
    if ((byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')) {
      bits[c] = letter | word;
    } else if (byte >= '0' && byte <= '9') {
      bits[c] = number | word;
    } else if (byte == ' ' || (byte >= '\t' && byte <= '\r')) {
      bits[c] = space;
    } else if (std::string_view("$+<=>^`|~").find(byte) != std::string_view::npos) {
      bits[c] = symbol;
    } else if (byte > ' ' && c < 127) {
      bits[c] = byte == '_' ? punctuation | word : punctuation;
    }
  }
  return bits;
}
inline constexpr std::array<uint8_t, 128> ascii_bits = make_ascii_bits();

class CharTable {
 public:
  // Built at the first call (about 20 ms), the same for every caller, never changed.
  static const CharTable& get();

  // code <= invalid_code.
  uint8_t bits(uint32_t code) const {
    return blocks_[static_cast<size_t>(index_[code >> 7]) * 128 + (code & 127)];
  }

 private:
  CharTable();

  std::vector<uint16_t> index_;  // block of each 128 code points
  std::vector<uint8_t> blocks_;
};

struct Char {
  uint32_t code;    // invalid_code for a stray byte
  uint32_t length;  // bytes, 1 to 4
};

// The character at p (p < end). Overlong forms, surrogates and codes above U+10FFFF are invalid.
inline Char decode_char(const char* p, const char* end) {
  const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  const auto follows = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    return {lead, 1};
  }
  const std::ptrdiff_t left = end - p;
  if (lead >= 0xC2 && lead < 0xE0 && left >= 2 && follows(1)) {
    return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  }
  if (lead >= 0xE0 && lead < 0xF0 && left >= 3 && follows(1) && follows(2)) {
    const uint32_t code = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) {
      return {code, 3};
    }
  }
  if (lead >= 0xF0 && lead < 0xF5 && left >= 4 && follows(1) && follows(2) && follows(3)) {
    const uint32_t code =
        (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    if (code >= 0x10000 && code < invalid_code) {
      return {code, 4};
    }
  }
  return {invalid_code, 1};
}

// The character that ends at p (begin < p).
Char decode_char_before(const char* begin, const char* p);

// How many bytes at the end (0 to 3) begin a character that more bytes could complete.
size_t unfinished_suffix(std::string_view text);

// Appends the UTF-8 form of a code point below invalid_code.
void append_utf8(uint32_t code, std::string& to);

}  // namespace shoestring
