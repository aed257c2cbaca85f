#include "io/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "core/check.h"

namespace shoestring {

namespace {

constexpr CodeRange newer_letters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x1123F, 0x11240},
    {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5},
    {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x11F02, 0x11F02}, {0x11F04, 0x11F10}, {0x11F12, 0x11F33}, {0x1342F, 0x1342F},
    {0x13441, 0x13446}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1B132, 0x1B132}, {0x1B155, 0x1B155}, {0x1DF25, 0x1DF2A},
    {0x1E030, 0x1E06D}, {0x1E4D0, 0x1E4EB}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0},
    {0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF}};
constexpr CodeRange newer_numbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                       {0x11F50, 0x11F59}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
                                       {0x1CCF0, 0x1CCF9}, {0x1D2C0, 0x1D2D3}, {0x1E4F0, 0x1E4F9},
                                       {0x1E5F1, 0x1E5FA}};
constexpr CodeRange newer_marks[] = {
    {0x897, 0x897},     {0xCF3, 0xCF3},     {0xECE, 0xECE},     {0x10D69, 0x10D6D},
    {0x10EFC, 0x10EFF}, {0x11241, 0x11241}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2},
    {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2},
    {0x113E1, 0x113E2}, {0x11F00, 0x11F01}, {0x11F03, 0x11F03}, {0x11F34, 0x11F3A},
    {0x11F3E, 0x11F42}, {0x11F5A, 0x11F5A}, {0x13440, 0x13440}, {0x13447, 0x13455},
    {0x1611E, 0x1612F}, {0x1E08F, 0x1E08F}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}};
constexpr CodeRange newer_punctuation[] = {
    {0x1B4E, 0x1B4F},   {0x1B7F, 0x1B7F},   {0x10D6E, 0x10D6E}, {0x113D4, 0x113D5},
    {0x113D7, 0x113D8}, {0x11B00, 0x11B09}, {0x11BE1, 0x11BE1}, {0x11F43, 0x11F4F},
    {0x16D6D, 0x16D6F}, {0x1E5FF, 0x1E5FF}};
constexpr CodeRange newer_symbols[] = {
    {0x2427, 0x2429},   {0x2FFC, 0x2FFF},   {0x31E4, 0x31E5},   {0x31EF, 0x31EF},
    {0x10D8E, 0x10D8F}, {0x1CC00, 0x1CCEF}, {0x1CD00, 0x1CEB3}, {0x1F6DC, 0x1F6DC},
    {0x1F774, 0x1F776}, {0x1F77B, 0x1F77F}, {0x1F7D9, 0x1F7D9}, {0x1F8B2, 0x1F8BB},
    {0x1F8C0, 0x1F8C1}, {0x1FA75, 0x1FA77}, {0x1FA87, 0x1FA89}, {0x1FA8F, 0x1FA8F},
    {0x1FAAD, 0x1FAAF}, {0x1FABB, 0x1FABF}, {0x1FAC6, 0x1FAC6}, {0x1FACE, 0x1FACF},
    {0x1FADA, 0x1FADC}, {0x1FADF, 0x1FADF}, {0x1FAE8, 0x1FAE9}, {0x1FAF7, 0x1FAF8},
    {0x1FBCB, 0x1FBEF}};
constexpr CodeRange spaces[] = {
    {0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
// Alphabetic symbols (circled and squared letters) and the two joiners, which \w takes in.
constexpr CodeRange other_word[] = {
    {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}, {0x200C, 0x200D}};

constexpr CodeRange combining_after_unicode_9[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

uint8_t category_bits(utf8proc_category_t category) {
  using namespace char_bits;
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return letter | word;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return number | word;
    case UTF8PROC_CATEGORY_NO:
      return number;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return mark | word;
    case UTF8PROC_CATEGORY_PC:
      return punctuation | word;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return punctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return symbol;
    default:
      return 0;
  }
}

void set_bits(std::vector<uint8_t>& all, std::span<const CodeRange> ranges, uint8_t bits) {
  for (const CodeRange& range : ranges) {
    for (uint32_t code = range.first; code <= range.last; ++code) {
      all[code] |= bits;
    }
  }
}

// A character is safe if NFC never changes it and never joins it to what stands before it.
void mark_unsafe(uint32_t code, const utf8proc_property_t& property, std::vector<uint8_t>& all) {
  if (property.combining_class != 0) {
    all[code] |= char_bits::nfc_unsafe;
  }
  const bool decomposes = property.decomp_seqindex != UINT16_MAX && property.decomp_type == 0;
  if (!decomposes) {
    return;
  }
  utf8proc_int32_t parts[32];
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code), parts, 32,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), nullptr);
  check(count >= 1 && count <= 32, "utf8proc gave an impossible decomposition");
  for (utf8proc_ssize_t i = 1; i < count; ++i) {
    all[static_cast<size_t>(parts[i])] |= char_bits::nfc_unsafe;
  }
  const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
      parts, count, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (composed != 1 || parts[0] != static_cast<utf8proc_int32_t>(code)) {
    all[code] |= char_bits::nfc_unsafe;
  }
}

std::vector<uint8_t> all_bits() {
  using namespace char_bits;
  std::vector<uint8_t> all(invalid_code + 128, 0);
  for (uint32_t code = 0; code < invalid_code; ++code) {
    const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(code));
    all[code] |= category_bits(static_cast<utf8proc_category_t>(property->category));
    mark_unsafe(code, *property, all);
  }
  set_bits(all, newer_letters, letter | word);
  set_bits(all, newer_numbers, number);
  set_bits(all, newer_marks, mark | word);
  set_bits(all, newer_punctuation, punctuation);
  set_bits(all, newer_symbols, symbol);
  set_bits(all, spaces, space);
  set_bits(all, other_word, word);
  // Hangul vowels and final consonants join the syllable before them.
  constexpr CodeRange jamo[] = {{0x1161, 0x1175}, {0x11A8, 0x11C2}};
  set_bits(all, jamo, nfc_unsafe);
  for (const CodeRange& range : combining_after_unicode_9) {
    for (uint32_t code = range.first; code <= range.last; ++code) {
      all[code] &= static_cast<uint8_t>(~nfc_unsafe);
    }
  }
  return all;
}

}  // namespace

std::span<const CodeRange> newer_code_points(char category) {
  switch (category) {
    case 'L':
      return newer_letters;
    case 'N':
      return newer_numbers;
    case 'M':
      return newer_marks;
    case 'P':
      return newer_punctuation;
    case 'S':
      return newer_symbols;
    default:
      return {};
  }
}

std::span<const CodeRange> white_space() { return spaces; }

std::span<const CodeRange> newer_than_nfc() { return combining_after_unicode_9; }

const CharTable& CharTable::get() {
  static const CharTable table;
  return table;
}

CharTable::CharTable() {
  const std::vector<uint8_t> all = all_bits();
  std::map<std::array<uint8_t, 128>, uint16_t> seen;
  for (size_t begin = 0; begin < all.size(); begin += 128) {
    std::array<uint8_t, 128> block;
    std::copy_n(all.data() + begin, 128, block.data());
    const auto [at, is_new] = seen.emplace(block, static_cast<uint16_t>(seen.size()));
    if (is_new) {
      blocks_.insert(blocks_.end(), block.begin(), block.end());
    }
    index_.push_back(at->second);
  }
}

Char decode_char_before(const char* begin, const char* p) {
  for (int length = 2; length <= 4 && p - begin >= length; ++length) {
    const Char found = decode_char(p - length, p);
    if (found.code != invalid_code && found.length == static_cast<uint32_t>(length)) {
      return found;
    }
  }
  return decode_char(p - 1, p);
}

size_t unfinished_suffix(std::string_view text) {
  constexpr char completion[] = "\x80\x80\x80";
  for (size_t count = std::min<size_t>(3, text.size()); count > 0; --count) {
    std::string tail(text.substr(text.size() - count));
    // Some second bytes are allowed only in one half of the continuation bytes' range.
    for (const char second : {'\x80', '\x90', '\xA0'}) {
      const std::string tried = tail + second + completion;
      if (decode_char(tried.data(), tried.data() + tried.size()).length > count) {
        return count;
      }
    }
  }
  return 0;
}

void append_utf8(uint32_t code, std::string& to) {
  if (code < 0x80) {
    to += static_cast<char>(code);
    return;
  }
  if (code < 0x800) {
    to += static_cast<char>(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      to += static_cast<char>(0xE0 | code >> 12);
    } else {
      to += static_cast<char>(0xF0 | code >> 18);
      to += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    }
    to += static_cast<char>(0x80 | (code >> 6 & 0x3F));
  }
  to += static_cast<char>(0x80 | (code & 0x3F));
}

}  // namespace shoestring
