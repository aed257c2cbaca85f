#include "parallel/comm/rank_failure.h"

#include <algorithm>
#include <csignal>
#include <thread>

#include "core/text.h"

namespace shoestring {
namespace {

constexpr int steps_of_order = 20;  // ranks behind these speak at once

bool names_a_rank(const std::string& message) {
  constexpr std::string_view word = "rank ";
  for (size_t at = message.find(word); at != std::string::npos; at = message.find(word, at + 1)) {
    const size_t number = at + word.size();
    if (number < message.size() && message[number] >= '0' && message[number] <= '9') return true;
  }
  return false;
}

}  // namespace

std::string text_of_error(const Error& error) {
  const bool placed = error.code() == ExitCode::fault && !error.where().empty();
  return placed ? cat(error.what(), " (", error.where(), ")") : error.what();
}

std::string text_of_current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return text_of_error(error);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

std::string with_rank(int rank, const std::string& message) {
  return names_a_rank(message) ? message : cat("rank ", rank, ": ", message);
}

std::chrono::milliseconds turn_of_rank(int rank, std::chrono::milliseconds lead) {
  if (rank <= 0) return std::chrono::milliseconds(0);
  return lead + lead * std::min(rank, steps_of_order) / steps_of_order;
}

void await_turn(std::chrono::milliseconds time) {
  if (time.count() <= 0) return;
  std::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(time);
}

}  // namespace shoestring
