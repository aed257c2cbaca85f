#pragma once
// Threads of one process as ranks. Receivers copy straight from the sender's memory, so a message
// costs one copy. Deterministic and clean under the thread sanitizer: the reference back end.

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace shoestring {

struct InProcessOptions {
  // How long a rank waits for another in one call before it gives up and ends them all.
  std::chrono::milliseconds deadline = std::chrono::seconds(300);
  std::string name = "world";
};

// Makes the communicators of `ranks` threads. They and their splits share the world's state, which
// lives as long as any of them.
class InProcessWorld {
 public:
  explicit InProcessWorld(int ranks, InProcessOptions options = {});
  // Once per rank; then used by that rank's threads.
  std::unique_ptr<Communicator> communicator(int rank);
  // The rank will make no more calls: whoever waits for it is told at once instead of at the
  // deadline.
  void leave(int rank) noexcept;

  class Shared;
  Shared& shared() const { return *shared_; }  // comm/in_process_transport.h

 private:
  std::shared_ptr<Shared> shared_;
};

// The error of run_ranks: the message names the rank, and the place of a fault.
class RankError : public Error {
 public:
  RankError(int rank, const std::string& message, ExitCode code);
  int rank() const { return rank_; }

 private:
  int rank_;
};

// Runs `body` on one thread a rank and waits for all. When a rank throws, the others' waits end
// (within milliseconds; a rank that is computing ends at its next wait) and the first failure that
// is not the consequence of another is thrown here as RankError.
void run_ranks(int ranks, const std::function<void(Communicator&)>& body,
               InProcessOptions options = {});

}  // namespace shoestring
