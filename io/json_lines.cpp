#include "io/json_lines.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr size_t kLongestWord = 400;  // digits of a number
constexpr size_t kDeepest = 1000;     // nested brackets

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool in_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || c == 'E' || c == '-' || c == '+' || c == '.';
}

// RFC 8259: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
bool is_number(std::string_view text) {
  size_t i = 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < text.size() && is_digit(text[i])) ++i;
    return i > from;
  };
  if (i < text.size() && text[i] == '-') ++i;
  if (i < text.size() && text[i] == '0') {
    ++i;
  } else if (!digits()) {
    return false;
  }
  if (i < text.size() && text[i] == '.') {
    ++i;
    if (!digits()) return false;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == text.size();
}

}  // namespace

void JsonLines::bad(const std::string& what) const {
  fail_data(cat(options_.path, ":", line_, ": byte ", position_, ": ", what));
}

void JsonLines::feed(std::string_view text) {
  while (!text.empty()) {
    // Most of a file is the inside of strings: taken in one go.
    const size_t run = at_ == At::string ? string_run(text) : 0;
    if (run > 0) {
      put(text.substr(0, run));
      position_ += run;
      text.remove_prefix(run);
      continue;
    }
    step(text[0]);
    ++position_;
    if (text[0] == '\n') ++line_;
    text.remove_prefix(1);
  }
}

void JsonLines::finish() {
  if (at_ == At::done) end_line();
  if (at_ != At::line) bad("the file ends inside an object; it is truncated");
}

size_t JsonLines::string_run(std::string_view text) {
  size_t i = 0;
  while (i < text.size() && text[i] != '"' && text[i] != '\\' &&
         static_cast<uint8_t>(text[i]) >= 0x20) {
    ++i;
  }
  return i;
}

void JsonLines::step(char c) {
  switch (at_) {
    case At::string:
      return string_char(c);
    case At::escape:
      return escape_char(c);
    case At::hex:
      return hex_char(c);
    case At::word:
      return word_char(c);
    default:
      break;
  }
  if (c == '\n' && at_ != At::line && at_ != At::done) bad("the line ends inside an object");
  if (c == '\n' && at_ == At::done) return end_line();
  if (is_space(c)) return;
  switch (at_) {
    case At::line:
      if (c != '{') bad(cat("expected an object, \"{\", not \"", std::string(1, c), "\""));
      stack_.assign(1, '{');
      found_ = false;
      at_ = At::first_key;
      return;
    case At::first_key:
    case At::key:
      if (c == '}' && at_ == At::first_key) return close(c);
      if (c != '"') bad("expected a key in quotes");
      return start_string(Use::key);
    case At::colon:
      if (c != ':') bad("expected \":\" after a key");
      at_ = At::value;
      return;
    case At::first_value:
    case At::value:
      return at_value(c);
    case At::after_value:
      return after_value(c);
    default:
      bad("expected the end of the line after an object");
  }
}

void JsonLines::at_value(char c) {
  const bool wanted = stack_.size() == 1 && key_ == options_.field;
  if (wanted && found_) bad(cat("the field \"", options_.field, "\" stands twice"));
  found_ = found_ || wanted;
  if (c == '"') return start_string(wanted ? Use::text : Use::other);
  if (in_word(c)) {
    word_.clear();
    at_ = At::word;
    return word_char(c);
  }
  if (wanted) bad(cat("the field \"", options_.field, "\" is no string"));
  if (c == ']' && at_ == At::first_value) return close(c);
  if (c != '{' && c != '[') bad("expected a value");
  if (stack_.size() >= kDeepest) bad(cat("more than ", kDeepest, " nested brackets"));
  stack_ += c;
  at_ = c == '{' ? At::first_key : At::first_value;
}

void JsonLines::after_value(char c) {
  if (c == '}' || c == ']') return close(c);
  if (c != ',') bad("expected \",\" or the end of the object");
  at_ = stack_.back() == '{' ? At::key : At::value;
}

void JsonLines::close(char bracket) {
  if ((bracket == '}') != (stack_.back() == '{')) bad("brackets do not match");
  stack_.pop_back();
  at_ = stack_.empty() ? At::done : At::after_value;
}

void JsonLines::start_string(Use use) {
  use_ = use;
  if (use == Use::key && stack_.size() == 1) key_.clear();
  at_ = At::string;
}

void JsonLines::string_char(char c) {
  if (c == '"') return end_string();
  if (c != '\\') bad("a control character inside a string; it must be escaped");
  at_ = At::escape;
}

void JsonLines::put(std::string_view text) {
  flush_surrogate();
  if (use_ == Use::text) to_.append(text);
  if (use_ == Use::key && stack_.size() == 1 && key_.size() <= options_.field.size()) key_ += text;
}

void JsonLines::escape_char(char c) {
  at_ = At::string;
  constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
  if (c == 'u') {
    at_ = At::hex;
    code_ = 0;
    digits_ = 0;
    return;
  }
  const size_t i = from.find(c);
  if (i == std::string_view::npos) bad("an unknown escape in a string");
  put(to.substr(i, 1));
}

void JsonLines::hex_char(char c) {
  const uint32_t digit = is_digit(c)              ? static_cast<uint32_t>(c - '0')
                         : (c >= 'a' && c <= 'f') ? static_cast<uint32_t>(c - 'a' + 10)
                         : (c >= 'A' && c <= 'F') ? static_cast<uint32_t>(c - 'A' + 10)
                                                  : 16;
  if (digit == 16) bad("\\u needs four hexadecimal digits");
  code_ = code_ << 4 | digit;
  if (++digits_ < 4) return;
  at_ = At::string;
  if (code_ >= 0xdc00 && code_ < 0xe000 && high_ != 0) {
    code_ = 0x10000 + ((high_ - 0xd800) << 10) + (code_ - 0xdc00);
    high_ = 0;
  }
  flush_surrogate();
  if (code_ >= 0xd800 && code_ < 0xdc00) {
    high_ = code_;
  } else if (code_ >= 0xdc00 && code_ < 0xe000) {
    bad_surrogate();
  } else if (use_ == Use::text) {
    to_.append_code_point(code_);
  } else if (use_ == Use::key) {
    put(cat("\\u", code_));  // a field is named in plain characters
  }
}

void JsonLines::flush_surrogate() {
  if (high_ == 0) return;
  high_ = 0;
  bad_surrogate();
}

void JsonLines::bad_surrogate() {
  if (use_ != Use::text) return;
  if (!options_.replace_bad) {
    bad(cat("a \\u escape of half a surrogate pair; repair the text", options_.bad_text_hint));
  }
  to_.append_code_point(0xfffd);
}

void JsonLines::end_string() {
  flush_surrogate();
  at_ = use_ == Use::key ? At::colon : At::after_value;
}

void JsonLines::word_char(char c) {
  if (in_word(c)) {
    word_ += c;
    if (word_.size() > kLongestWord) bad("a number or word that is too long");
    return;
  }
  end_word();
  step(c);
}

void JsonLines::end_word() {
  if (word_ != "true" && word_ != "false" && word_ != "null" && !is_number(word_)) {
    bad(cat("\"", word_, "\" is no value"));
  }
  if (stack_.size() == 1 && key_ == options_.field && word_ != "null") {
    bad(cat("the field \"", options_.field, "\" is no string"));
  }
  at_ = At::after_value;
}

void JsonLines::end_line() {
  if (!found_) bad(cat("the object has no field \"", options_.field, "\"", options_.field_hint));
  to_.end();
  at_ = At::line;
}

}  // namespace shoestring
