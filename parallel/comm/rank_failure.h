#pragma once
// What a user reads when ranks fail: one message, from one rank, that names it once.

#include <chrono>
#include <source_location>
#include <string>

#include "core/check.h"

namespace shoestring {

// fail(message, no_place): for faults whose cause lies outside of the program; where() is empty.
inline constexpr std::source_location no_place{};

// A wait that was longer than the deadline.
class NoAnswer : public Error {
 public:
  // `cause`: the rank to blame; -1: the ranks wait for one another.
  NoAnswer(const std::string& message, int cause)
      : Error(message, ExitCode::fault, no_place), cause_(cause) {}
  int cause() const { return cause_; }

 private:
  int cause_;
};

// The message; behind that of a fault, its place in the source in brackets: it matters to whoever
// mends it, while what a user did speaks for itself.
std::string text_of_error(const Error& error);
// Of the exception that is being handled.
std::string text_of_current_error();

// "rank 2: message"; a message that names a rank itself stays as it is.
std::string with_rank(int rank, const std::string& message);

// A mistake that all ranks find is told by the first of them, which thereby ends the others; an
// error that only one rank meets is told after this time: none for rank 0, else from `lead` to
// twice as long, in the order of the ranks.
std::chrono::milliseconds turn_of_rank(int rank, std::chrono::milliseconds lead);

// Waits so long before a process says why it failed. SIGTERM, by which launchers end the processes
// of a job that failed, ends this one without a word meanwhile.
void await_turn(std::chrono::milliseconds time);

}  // namespace shoestring
