#include "io/tokenizer/byte_chars.h"

#include <array>
#include <cstdint>

#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

constexpr uint32_t first_stand_in = 0x100;

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint32_t, 256> code_of_byte = [] {
  std::array<uint32_t, 256> codes{};
  uint32_t next = first_stand_in;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    codes[byte] = stands_for_itself(byte) ? byte : next++;
  }
  return codes;
}();

constexpr std::array<int16_t, first_stand_in + 68> byte_of_code = [] {
  std::array<int16_t, first_stand_in + 68> bytes{};
  bytes.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) {
    bytes[code_of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return bytes;
}();

}  // namespace

std::string bytes_to_chars(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    append_utf8(code_of_byte[static_cast<unsigned char>(c)], out);
  }
  return out;
}

std::optional<std::string> chars_to_bytes(std::string_view chars) {
  std::string out;
  const char* p = chars.data();
  const char* const end = p + chars.size();
  while (p < end) {
    const Char c = decode_char(p, end);
    if (c.code >= byte_of_code.size() || byte_of_code[c.code] < 0) {
      return std::nullopt;
    }
    out += static_cast<char>(byte_of_code[c.code]);
    p += c.length;
  }
  return out;
}

}  // namespace shoestring
