#pragma once
// Errors are exceptions with three facts: what went wrong, where in the source, and which exit code
// the process ends with. Everything is thrown, and caught once per rank at the top (launcher/main).

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace shoestring {

// The process's exit code; the numbers are part of the command line's contract.
enum class ExitCode : int { done = 0, usage = 2, data = 3, fault = 4, preempted = 75 };

class Error : public std::runtime_error {
 public:
  Error(std::string message, ExitCode code, std::source_location where);
  ExitCode code() const { return code_; }
  // "core/ops/linear.cpp:41", relative to the source tree; empty messages never occur.
  const std::string& where() const { return where_; }

 private:
  ExitCode code_;
  std::string where_;
};

// Programming errors, broken hardware, impossible states: exit code 4.
[[noreturn]] void fail(std::string message,
                       std::source_location where = std::source_location::current());
// The user's command line or config is wrong: exit code 2.
[[noreturn]] void fail_usage(std::string message,
                             std::source_location where = std::source_location::current());
// A file is missing, truncated, corrupt or of the wrong kind: exit code 3.
[[noreturn]] void fail_data(std::string message,
                            std::source_location where = std::source_location::current());

// For conditions whose message needs no formatting; where it does, write `if (!ok)
// fail(StrCat(...))` so that the message is built only when it is needed.
inline void check(bool ok, std::string_view message,
                  std::source_location where = std::source_location::current()) {
  if (!ok) [[unlikely]] {
    fail(std::string(message), where);
  }
}

}  // namespace shoestring
