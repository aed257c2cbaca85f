#pragma once
// Threads as ranks (comm/in_process.h), with a limit on how long the end of them all takes after
// one has failed.

#include <chrono>
#include <functional>

#include "parallel/comm/in_process.h"

namespace shoestring {

// A thread cannot be ended from outside: one that computes, or hangs, after another has failed is
// waited for so long.
struct Patience {
  std::chrono::milliseconds time = std::chrono::seconds(30);
  // Then called with the error that run_ranks would throw, to end the process.
  std::function<void(const RankError&)> over;
};

void run_ranks(int ranks, const std::function<void(Communicator&)>& body, InProcessOptions options,
               const Patience& patience);

}  // namespace shoestring
