#pragma once
// Every byte of text passes here: bad UTF-8 is an error with its position, or replaced, or kept.

#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

enum class BadUtf8 {
  error,    // data error that names the file and the byte
  replace,  // U+FFFD for each maximal broken part, as the Unicode standard recommends
  keep      // as it is: byte-level tokenizers can encode any bytes
};

class Utf8Check {
 public:
  // `hint` ends the message of an error: what else may be done than repairing the text.
  Utf8Check(std::string path, BadUtf8 policy, std::string hint = {})
      : path_(std::move(path)), policy_(policy), hint_(std::move(hint)) {}
  // Appends the checked text to `out`. An unfinished sequence at the end waits for the next call.
  void feed(std::string_view bytes, std::string& out);
  // The end of the input: an unfinished sequence is bad now.
  void finish(std::string& out);
  int64_t replaced() const { return replaced_; }
  // Bytes checked so far.
  uint64_t position() const { return position_; }

 private:
  void bad(std::string_view part, std::string& out);
  std::string path_;
  BadUtf8 policy_;
  std::string hint_;
  std::string waiting_;
  uint64_t position_ = 0;
  int64_t replaced_ = 0;
};

// Data error when a text that begins with these bytes is UTF-16 or UTF-32: it begins with their
// byte-order mark, or every other byte is zero as in Western text without a mark. Most of such a
// text passes for UTF-8 of one letter and one zero byte in turn.
void refuse_utf16(std::string_view start, const std::string& where);

// Data error that names `where` and the byte unless all of `text` is UTF-8.
void require_utf8(std::string_view text, const std::string& where);

// Length of the valid sequence at the start of `bytes`; 0 when there is none. `broken` is then the
// length of the maximal part that is broken (>= 1), or 0 when more bytes could still complete it.
int utf8_sequence(std::string_view bytes, int* broken);

}  // namespace shoestring
