#include "io/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

void append_ranges(std::span<const CodeRange> ranges, std::string& to) {
  for (const CodeRange& range : ranges) {
    to += absl::StrFormat("\\x{%X}", range.first);
    if (range.last != range.first) {
      to += absl::StrFormat("-\\x{%X}", range.last);
    }
  }
}

std::string space_ranges() {
  std::string out;
  append_ranges(white_space(), out);
  return out;
}

std::string non_space_ranges() {
  std::vector<CodeRange> gaps;
  uint32_t next = 0;
  for (const CodeRange& range : white_space()) {
    if (range.first > next) {
      gaps.push_back({next, range.first - 1});
    }
    next = range.last + 1;
  }
  gaps.push_back({next, invalid_code - 1});
  std::string out;
  append_ranges(gaps, out);
  return out;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else {
        plain_character(c);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    fail_data(cat("the pattern ", pattern_, " cannot be used: ", why, " (at byte ", at_, ")"));
  }

  char peek(size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }

  void take(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  // A class, given as the inside of a bracket expression.
  void put_class(const std::string& inside, bool negated, size_t consumed) {
    if (in_class_) {
      out_ += inside;
    } else {
      out_ += cat(negated ? "[^" : "[", inside, "]");
    }
    at_ += consumed;
  }

  void escape() {
    const char kind = peek(1);
    if (kind == 's') {
      put_class(space_ranges(), false, 2);
    } else if (kind == 'S') {
      if (in_class_) {
        put_class(non_space_ranges(), false, 2);
      } else {
        put_class(space_ranges(), true, 2);
      }
    } else if ((kind == 'p' || kind == 'P') && peek(2) == '{') {
      property(kind == 'P');
    } else if (kind == 'h' || kind == 'H') {
      refuse("\\h is a hexadecimal digit in one engine and a blank in the other");
    } else {
      take(2);
    }
  }

  void property(bool negated) {
    const size_t close = pattern_.find('}', at_);
    if (close == std::string_view::npos) {
      refuse("\\p{ without }");
    }
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    const auto newer = name.size() == 1 ? newer_code_points(name[0]) : std::span<const CodeRange>();
    const size_t consumed = close + 1 - at_;
    if (newer.empty()) {
      take(consumed);
      return;
    }
    if (negated && in_class_) {
      refuse("a negated property inside a class");
    }
    std::string inside = cat("\\p{", name, "}");
    append_ranges(newer, inside);
    put_class(inside, negated, consumed);
  }

  void class_character(char c) {
    if (c == '&' && peek(1) == '&') {
      refuse("intersections of classes (&&)");
    }
    if (c == '[' && peek(1) != ':') {
      refuse("a class within a class; write \\[ for a bracket");
    }
    if (c == '[') {
      const size_t close = pattern_.find(":]", at_ + 2);
      if (close == std::string_view::npos) {
        refuse("[: without :]");
      }
      take(close + 2 - at_);
      return;
    }
    in_class_ = c != ']';
    take(1);
  }

  void plain_character(char c) {
    if (c == '[') {
      in_class_ = true;
      take(peek(1) == '^' ? 2 : 1);
      if (peek(0) == ']') {
        take(1);
      }
      return;
    }
    const bool ends_interval = c == '}' && peek(1) == '+';
    if (ends_interval) {
      refuse("'{n,m}+' repeats the interval in one engine and is possessive in the other");
    }
    take(1);
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

std::string to_pcre2_pattern(std::string_view pattern) { return Translator(pattern).run(); }

struct Regex::Scratch::Handles {
  // Backtracking over a long run of blanks takes stack in proportion to the run.
  static constexpr size_t jit_stack_bytes = size_t{256} << 20;
  // Ends catastrophic patterns after a second or two; a megabyte of blanks needs a million.
  static constexpr uint32_t match_limit = 200'000'000;

  Handles()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, jit_stack_bytes, nullptr)) {
    check(data != nullptr && context != nullptr, "no memory for a regular expression's search");
    pcre2_set_match_limit(context, match_limit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Handles() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;  // null where the processor has no JIT
};

Regex::Scratch::Scratch() = default;
Regex::Scratch::~Scratch() = default;
Regex::Scratch::Scratch(Scratch&&) noexcept = default;
Regex::Scratch& Regex::Scratch::operator=(Scratch&&) noexcept = default;

Regex::Regex(std::string_view pattern) {
  const std::string translated = to_pcre2_pattern(pattern);
  int error = 0;
  size_t position = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
      &error, &position, nullptr);
  if (code == nullptr) {
    fail_data(cat("the pattern ", pattern, " is broken: ", pcre2_message(error), " (at byte ",
                  position, " of ", translated, ")"));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it, matching is only slower
  code_ = code;
}

Regex::~Regex() { pcre2_code_free(static_cast<pcre2_code*>(code_)); }

std::optional<std::pair<size_t, size_t>> Regex::find(std::string_view text, size_t from,
                                                     Scratch& scratch) const {
  if (!scratch.handles_) {
    scratch.handles_ = std::make_unique<Scratch::Handles>();
  }
  auto& handles = *scratch.handles_;
  const int found =
      pcre2_match(static_cast<const pcre2_code*>(code_), reinterpret_cast<PCRE2_SPTR>(text.data()),
                  text.size(), from, PCRE2_NOTEMPTY, handles.data, handles.context);
  if (found == PCRE2_ERROR_NOMATCH) {
    return std::nullopt;
  }
  if (found < 0) {
    fail_data(cat("splitting text failed after byte ", from, " of ", text.size(), ": ",
                  pcre2_message(found), "; is there a very long run of blanks?"));
  }
  const size_t* borders = pcre2_get_ovector_pointer(handles.data);
  return std::pair(borders[0], borders[1]);
}

}  // namespace shoestring
