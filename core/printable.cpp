#include "core/printable.h"

#include <algorithm>
#include <cstdint>

namespace shoestring {
namespace {

// Bytes of the character at the start that may be shown; 0: its first byte may not. Overlong forms,
// surrogates and what lies beyond U+10FFFF are no UTF-8 (Unicode 15, table 3-7).
size_t shown_bytes(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; };
  const auto follows = [&](size_t i) { return (at(i) & 0xc0) == 0x80; };
  const int first = at(0), second = at(1);
  if (first < 0x80) return (first >= 0x20 && first != 0x7f) || first == '\n' || first == '\t';
  if (!follows(1)) return 0;
  if (first == 0xc2) return second >= 0xa0 ? 2 : 0;  // below: control characters
  if (first > 0xc2 && first < 0xe0) return 2;
  if (first < 0xe0 || first > 0xf4 || !follows(2)) return 0;
  if (first == 0xe0 && second < 0xa0) return 0;
  if (first == 0xed && second > 0x9f) return 0;
  if (first < 0xf0) return 3;
  if (!follows(3) || (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) return 0;
  return 4;
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const size_t bytes = shown_bytes(text);
    if (bytes > 0) {
      shown.append(text.substr(0, bytes));
    } else {
      const auto byte = static_cast<uint8_t>(text[0]);
      shown.append({'\\', 'x', digits[byte >> 4], digits[byte & 15]});
    }
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return shown;
}

}  // namespace shoestring
