#pragma once
// Lines for people on standard error: "warning: ...", with the rank when there are several.
// Results (tables, JSON) go to standard output and never through here.

#include <string_view>

namespace shoestring {

enum class LogLevel { info, warning, error };

// Names the calling thread's rank in its lines; -1 (the default) names none.
void set_log_rank(int rank);
int log_rank();

// Thread-safe: one whole line a call.
void log_line(LogLevel level, std::string_view message);
inline void log_info(std::string_view message) { log_line(LogLevel::info, message); }
inline void log_warning(std::string_view message) { log_line(LogLevel::warning, message); }
inline void log_error(std::string_view message) { log_line(LogLevel::error, message); }

}  // namespace shoestring
