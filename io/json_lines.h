#pragma once
// One text field of every object of a JSON-lines file, without ever holding a line: a line of any
// length passes in bounded memory. The syntax is checked (RFC 8259); errors are data errors with
// file, line and byte.

#include <cstdint>
#include <string>
#include <string_view>

#include "io/text_cut.h"

namespace shoestring {

struct JsonLinesOptions {
  std::string path;            // for messages
  std::string field = "text";  // a string at the top level of each object; null counts as empty
  bool replace_bad = false;    // \u escapes of lone surrogates become U+FFFD instead of an error
  std::string bad_text_hint = {}, field_hint = {};  // ends of messages, see TextOptions
};

// A push parser: a state machine fed with any division of the text into parts.
class JsonLines {
 public:
  JsonLines(JsonLinesOptions options, DocumentBuilder& to)
      : options_(std::move(options)), to_(to) {}
  void feed(std::string_view text);
  void finish();

 private:
  // What may come next. In `line` nothing of an object has been seen; in `done` its end.
  enum class At {
    line,
    first_key,
    key,
    colon,
    first_value,
    value,
    after_value,
    string,
    escape,
    hex,
    word,
    done
  };
  enum class Use { key, text, other };  // what the current string is

  void step(char c);
  void at_value(char c);
  void after_value(char c);
  void start_string(Use use);
  size_t string_run(std::string_view text);
  void string_char(char c);
  void put(std::string_view text);
  void escape_char(char c);
  void hex_char(char c);
  void end_string();
  void word_char(char c);
  void end_word();
  void close(char bracket);
  void flush_surrogate();
  void bad_surrogate();
  void end_line();
  [[noreturn]] void bad(const std::string& what) const;

  JsonLinesOptions options_;
  DocumentBuilder& to_;
  At at_ = At::line;
  Use use_ = Use::other;
  std::string stack_;             // open brackets
  std::string key_;               // of the top level, cut at a length that no field name has
  std::string word_;              // a number, true, false or null
  uint32_t code_ = 0, high_ = 0;  // of \u escapes
  int digits_ = 0;
  bool found_ = false;
  int64_t line_ = 1;
  uint64_t position_ = 0;
};

}  // namespace shoestring
