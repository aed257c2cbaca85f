#pragma once
// What a person sees while a run goes on: one line that rewrites itself on a terminal, plain lines
// elsewhere; and the texts for durations, counts and bytes that all commands share.

#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

std::string text_of_seconds(double seconds);          // "1 h 02 min", "4 min 10 s", "12.3 s"
std::string text_of_count(double count);              // "3.69 M", "812"
std::string text_of_bytes(double bytes);              // "1.25 GiB"
std::string text_of_fixed(double value, int digits);  // 3.14159, 2 -> "3.14"

// `text` in at most `columns` columns, because a line that wraps cannot be rewritten. Parts are two
// spaces apart, the most important first: the last ones are left out; a part too long is cut.
std::string fitted(std::string_view text, size_t columns);

// Writes to standard error. Not thread-safe: one rank owns it.
class ProgressLine {
 public:
  ProgressLine();
  // `columns`: the terminal's width; 0 asks it at each update, for windows that change.
  explicit ProgressLine(bool terminal, int columns = 0) : terminal_(terminal), columns_(columns) {}
  ~ProgressLine();
  // Replaces the live line, as far as it fits; elsewhere than on a terminal it does nothing.
  void update(std::string_view text);
  // A line that stays, above the live one.
  void line(std::string_view text);
  bool terminal() const { return terminal_; }

 private:
  bool terminal_;
  int columns_ = 0;
  bool live_ = false;
};

}  // namespace shoestring
