#pragma once
// What a person sees while a run goes on: one line that rewrites itself on a terminal, plain lines
// elsewhere; and the texts for durations, counts and bytes that all commands share.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
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

// What goes on, on the console. Not thread-safe: one rank owns it.
class ProgressLine {
 public:
  struct Console {
    bool terminal = false;  // shows the live line
    int columns = 0;        // its width; 0 asks it at each update, for windows that change
    double interval = 10;   // seconds between two texts of tick()
  };
  // Lines that stay go to `lines`: stdout where they are what the command is for, stderr where it
  // prints a result in the end. The live line goes to standard error; there is none where that is
  // no terminal, nor where lines go into a pipe, whose reader (tee) may write to that terminal.
  explicit ProgressLine(std::FILE* lines);
  ProgressLine(std::FILE* lines, const Console& console) : lines_(lines), console_(console) {}
  ~ProgressLine();
  // Replaces the live line, as far as it fits; elsewhere than on a terminal it does nothing.
  void update(std::string_view text);
  // A line that stays, above the live one.
  void line(std::string_view text);
  // To be called often: now and then, first after an interval, updates the live line; without a
  // terminal it is a line that stays.
  void tick(const std::function<std::string()>& text);

 private:
  using Clock = std::chrono::steady_clock;
  std::FILE* lines_;
  Console console_;
  bool live_ = false;
  Clock::time_point told_ = Clock::now();
};

}  // namespace shoestring
