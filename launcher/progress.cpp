#include "launcher/progress.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cmath>

#include "core/text.h"

namespace shoestring {
namespace {

std::string formatted(const char* format, double value) {
  std::array<char, 64> buffer;
  std::snprintf(buffer.data(), buffer.size(), format, value);
  return buffer.data();
}

void put(std::FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

bool is_pipe(std::FILE* file) {
  struct stat info = {};
  return ::fstat(::fileno(file), &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

ProgressLine::Console console_for(std::FILE* lines) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1 && !is_pipe(lines);
  return {.terminal = terminal, .columns = 0, .interval = terminal ? 0.2 : 10};
}

int columns_of_terminal() {
  winsize size = {};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

std::string text_of_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "unknown";
  if (seconds < 60) return formatted("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(std::lround(seconds));
  if (whole < 3600) return cat(whole / 60, " min ", formatted("%02.0f", whole % 60), " s");
  if (whole < 48 * 3600) {
    return cat(whole / 3600, " h ", formatted("%02.0f", (whole % 3600) / 60), " min");
  }
  return cat(whole / 86400, " d ", whole % 86400 / 3600, " h");
}

std::string text_of_count(double count) {
  constexpr std::array<const char*, 5> units = {"", " k", " M", " G", " T"};
  size_t unit = 0;
  while (std::fabs(count) >= 999.5 && unit + 1 < units.size()) {
    count /= 1000;
    ++unit;
  }
  return formatted(unit == 0 ? "%.0f" : "%.3g", count) + units[unit];
}

std::string text_of_bytes(double bytes) {
  constexpr std::array<const char*, 5> units = {" B", " KiB", " MiB", " GiB", " TiB"};
  size_t unit = 0;
  while (std::fabs(bytes) >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return formatted(unit == 0 ? "%.0f" : "%.2f", bytes) + units[unit];
}

std::string text_of_fixed(double value, int digits) {
  std::array<char, 400> buffer;  // the largest double has 309 digits before the point
  std::snprintf(buffer.data(), buffer.size(), "%.*f", digits, value);
  return buffer.data();
}

std::string fitted(std::string_view text, size_t columns) {
  while (text.size() > columns) {
    const size_t at = text.rfind("  ");
    if (at == std::string_view::npos || at == 0) {
      while (columns > 0 && (static_cast<unsigned char>(text[columns]) & 0xc0) == 0x80) --columns;
      return std::string(text.substr(0, columns));
    }
    text = text.substr(0, at);
  }
  return std::string(text);
}

ProgressLine::ProgressLine(std::FILE* lines) : ProgressLine(lines, console_for(lines)) {}

ProgressLine::~ProgressLine() {
  if (live_) put(stderr, "\n");
}

void ProgressLine::update(std::string_view text) {
  if (!console_.terminal) return;
  // One column stays free: some terminals wrap as soon as the last one is filled.
  const int columns = console_.columns > 0 ? console_.columns : columns_of_terminal();
  put(stderr, cat("\r\x1b[K", fitted(text, static_cast<size_t>(columns - 1))));
  live_ = true;
}

void ProgressLine::line(std::string_view text) {
  if (live_) put(stderr, "\r\x1b[K");
  live_ = false;
  put(lines_, cat(text, "\n"));
}

void ProgressLine::tick(const std::function<std::string()>& text) {
  const Clock::time_point now = Clock::now();
  if (std::chrono::duration<double>(now - told_).count() < console_.interval) return;
  told_ = now;
  console_.terminal ? update(text()) : line(text());
}

}  // namespace shoestring
