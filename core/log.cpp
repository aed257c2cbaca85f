#include "core/log.h"

#include <unistd.h>

#include <string>

#include "core/printable.h"
#include "core/text.h"

namespace shoestring {
namespace {

thread_local int thread_rank = -1;

std::string_view prefix(LogLevel level) {
  switch (level) {
    case LogLevel::info:
      return "";
    case LogLevel::warning:
      return "warning: ";
    case LogLevel::error:
      return "error: ";
  }
  return "";
}

}  // namespace

void set_log_rank(int rank) { thread_rank = rank; }
int log_rank() { return thread_rank; }

void log_line(LogLevel level, std::string_view message) {
  std::string rank = thread_rank >= 0 ? cat("[rank ", thread_rank, "] ") : "";
  // Messages quote what stands in files; no terminal shall obey that.
  std::string line = cat(rank, prefix(level), printable(message), "\n");
  // One write per line, so that lines of several ranks never mix.
  std::string_view rest = line;
  while (!rest.empty()) {
    ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written <= 0) return;
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace shoestring
