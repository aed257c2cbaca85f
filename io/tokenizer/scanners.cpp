#include "io/tokenizer/scanners.h"

#include <array>

#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace patterns {
const std::string_view gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view deepseek_numbers = R"(\p{N}{1,3})";
const std::string_view deepseek_cjk = "[一-龥぀-ゟ゠-ヿ]+";
const std::string_view deepseek_words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}  // namespace patterns

namespace {

using namespace char_bits;

struct Seen {
  uint8_t bits;
  const char* next;
};

inline Seen look(const char* p, const char* end) {
  const auto byte = static_cast<unsigned char>(*p);
  if (byte < 0x80) {
    return {ascii_bits[byte], p + 1};
  }
  const Char c = decode_char(p, end);
  return {CharTable::get().bits(c.code), p + c.length};
}

// The end of the run of characters that have one of the bits `any` (or, of those that have none).
template <bool wanted>
inline const char* skip(const char* p, const char* end, uint8_t any) {
  while (p < end) {
    const Seen seen = look(p, end);
    if (((seen.bits & any) != 0) != wanted) {
      break;
    }
    p = seen.next;
  }
  return p;
}

inline bool is_newline(char c) { return c == '\n' || c == '\r'; }

inline const char* skip_newlines(const char* p, const char* end) {
  while (p < end && is_newline(*p)) {
    ++p;
  }
  return p;
}

// 's 't 'm 'd 're 've 'll after an apostrophe at `at`; null if none. Folding of case makes U+017F
// (two bytes) an s.
const char* scan_contraction(const char* at, const char* end, bool any_case) {
  const auto letter_at = [&](int i) -> char {
    if (end - at <= i) {
      return '\0';
    }
    return any_case ? static_cast<char>(at[i] | 0x20) : at[i];
  };
  const char first = letter_at(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    return at + 2;
  }
  const char second = letter_at(2);
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l')) {
    return at + 3;
  }
  if (any_case && end - at >= 3 && at[1] == '\xC5' && at[2] == '\xBF') {
    return at + 3;
  }
  return nullptr;
}

// `\s*[\r\n]+` (if lines), `\s+(?!\S)`, `\s+`, at a space: a run up to its last line end; else the
// run without its last character if something follows it; else the run.
template <bool lines>
const char* scan_spaces(const char* at, const char* end) {
  const char* p = at;
  const char* last = at;
  const char* after_newline = nullptr;
  while (p < end) {
    const Seen seen = look(p, end);
    if (!(seen.bits & space)) {
      break;
    }
    last = p;
    p = seen.next;
    if (lines && is_newline(*last)) {
      after_newline = p;
    }
  }
  if (after_newline != nullptr) {
    return after_newline;
  }
  return p == end || last == at ? p : last;
}

const char* scan_gpt2(const char* at, const char* end) {
  if (*at == '\'') {
    if (const char* contraction = scan_contraction(at, end, false)) {
      return contraction;
    }
  }
  Seen seen = look(at, end);
  if (*at == ' ' && seen.next < end) {
    const Seen second = look(seen.next, end);
    if (!(second.bits & space)) {
      seen = second;
    }
  }
  if (seen.bits & letter) {
    return skip<true>(seen.next, end, letter);
  }
  if (seen.bits & number) {
    return skip<true>(seen.next, end, number);
  }
  if (seen.bits & space) {
    return scan_spaces<false>(at, end);
  }
  return skip<false>(seen.next, end, space | letter | number);
}

template <int max_digits>
const char* scan_llama3(const char* at, const char* end) {
  if (*at == '\'') {
    if (const char* contraction = scan_contraction(at, end, true)) {
      return contraction;
    }
  }
  const Seen first = look(at, end);
  if (first.bits & letter) {
    return skip<true>(first.next, end, letter);
  }
  if (first.bits & number) {
    const char* p = first.next;
    for (int i = 1; i < max_digits && p < end; ++i) {
      const Seen digit = look(p, end);
      if (!(digit.bits & number)) {
        break;
      }
      p = digit.next;
    }
    return p;
  }
  if (!is_newline(*at) && first.next < end) {
    const Seen second = look(first.next, end);
    if (second.bits & letter) {
      return skip<true>(second.next, end, letter);
    }
    if (*at == ' ' && !(second.bits & (space | number))) {
      return skip_newlines(skip<false>(second.next, end, space | letter | number), end);
    }
  }
  if (first.bits & space) {
    return scan_spaces<true>(at, end);
  }
  return skip_newlines(skip<false>(first.next, end, space | letter | number), end);
}

const char* scan_deepseek_numbers(const char* at, const char* end) {
  const Seen first = look(at, end);
  if (!(first.bits & number)) {
    return skip<false>(first.next, end, number);
  }
  const char* p = first.next;
  for (int i = 1; i < 3 && p < end; ++i) {
    const Seen digit = look(p, end);
    if (!(digit.bits & number)) {
      break;
    }
    p = digit.next;
  }
  return p;
}

inline bool is_deepseek_cjk(uint32_t code) {
  return (code >= 0x4E00 && code <= 0x9FA5) || (code >= 0x3040 && code <= 0x30FF);
}

const char* scan_deepseek_cjk(const char* at, const char* end) {
  const Char first = decode_char(at, end);
  const bool inside = is_deepseek_cjk(first.code);
  const char* p = at + first.length;
  while (p < end) {
    // All of them have a lead byte from E3 (3040 on) to E9.
    const auto byte = static_cast<unsigned char>(*p);
    if (!inside && (byte < 0xE3 || byte > 0xE9)) {
      ++p;
      continue;
    }
    const Char c = decode_char(p, end);
    if (is_deepseek_cjk(c.code) != inside) {
      break;
    }
    p += c.length;
  }
  return p;
}

inline bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

inline bool is_ascii_punctuation(char c) {
  return c >= '!' && c <= '~' && !is_ascii_letter(c) && !(c >= '0' && c <= '9');
}

// The end of the match of deepseek_words at `at`; null if it matches nothing there.
const char* match_deepseek_words(const char* at, const char* end) {
  const Seen first = look(at, end);
  if (is_ascii_punctuation(*at) && first.next < end && is_ascii_letter(*first.next)) {
    const char* p = first.next;
    while (p < end && is_ascii_letter(*p)) {
      ++p;
    }
    return p;
  }
  if (first.bits & (letter | mark)) {
    return skip<true>(first.next, end, letter | mark);
  }
  if (!is_newline(*at) && first.next < end) {
    const Seen second = look(first.next, end);
    if (!(first.bits & (punctuation | symbol)) && (second.bits & (letter | mark))) {
      return skip<true>(second.next, end, letter | mark);
    }
    if (*at == ' ' && (second.bits & (punctuation | symbol))) {
      return skip_newlines(skip<true>(second.next, end, punctuation | symbol), end);
    }
  }
  if (first.bits & (punctuation | symbol)) {
    return skip_newlines(skip<true>(first.next, end, punctuation | symbol), end);
  }
  return first.bits & space ? scan_spaces<true>(at, end) : nullptr;
}

const char* scan_deepseek_words(const char* at, const char* end) {
  if (const char* matched = match_deepseek_words(at, end)) {
    return matched;
  }
  const char* p = look(at, end).next;
  while (p < end && match_deepseek_words(p, end) == nullptr) {
    p = look(p, end).next;
  }
  return p;
}

// The `Digits` step's own table of numeric characters is of a later Unicode than the patterns'.
bool is_numeric(const char* p, const char* end) {
  const uint32_t code = decode_char(p, end).code;
  return (CharTable::get().bits(code) & number) || (code >= 0x11DE0 && code <= 0x11DE9) ||
         (code >= 0x16FF4 && code <= 0x16FF6);
}

template <bool individual>
const char* scan_digits(const char* at, const char* end) {
  const bool numeric = is_numeric(at, end);
  const char* p = look(at, end).next;
  if (numeric && individual) {
    return p;
  }
  while (p < end && is_numeric(p, end) == numeric) {
    p = look(p, end).next;
  }
  return p;
}

}  // namespace

namespace {

// Files hold line ends either as they are or as escapes, with one meaning.
std::string with_escapes(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      out += c == '\r' ? "\\r" : "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

SplitStep SplitStep::from_pattern(std::string_view given, bool with_scanner) {
  SplitStep step;
  step.name_ = with_escapes(given);
  const std::string& pattern = step.name_;
  constexpr auto known = [] {
    struct Known {
      const std::string_view* pattern;
      Scanner scanner;
    };
    return std::array<Known, 6>{{{&patterns::gpt2, scan_gpt2},
                                 {&patterns::llama3, scan_llama3<3>},
                                 {&patterns::qwen2, scan_llama3<1>},
                                 {&patterns::deepseek_numbers, scan_deepseek_numbers},
                                 {&patterns::deepseek_cjk, scan_deepseek_cjk},
                                 {&patterns::deepseek_words, scan_deepseek_words}}};
  }();
  for (const auto& entry : known) {
    if (with_scanner && *entry.pattern == pattern) {
      step.scanner_ = entry.scanner;
      return step;
    }
  }
  step.regex_ = std::make_shared<const Regex>(pattern);
  return step;
}

SplitStep SplitStep::digits(bool individual) {
  SplitStep step;
  step.name_ = individual ? "single digits" : "digits";
  step.scanner_ = individual ? scan_digits<true> : scan_digits<false>;
  return step;
}

bool SplitStep::leaves_no_gaps() const {
  return name_ == patterns::gpt2 || name_ == patterns::llama3 || name_ == patterns::qwen2;
}

const char* SplitStep::next(const char* begin, const char* at, const char* end,
                            Regex::Scratch& scratch) const {
  if (scanner_ != nullptr) {
    return scanner_(at, end);
  }
  const auto from = static_cast<size_t>(at - begin);
  const auto match = regex_->find({begin, static_cast<size_t>(end - begin)}, from, scratch);
  if (!match) {
    return end;
  }
  return begin + (match->first > from ? match->first : match->second);
}

}  // namespace shoestring
