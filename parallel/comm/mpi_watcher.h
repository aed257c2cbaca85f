#pragma once
// Inside of comm/mpi: a thread that sees what no wait with a deadline sees, a process of this
// machine that died, and an MPI call that does not come back.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "parallel/comm/mpi_board.h"

namespace shoestring {

class MpiWatcher {
 public:
  // Tells once, from its own thread: the message, and the rank to blame (-1: not known).
  using Tell = std::function<void(const std::string& message, int rank)>;
  MpiWatcher(MpiBoard& board, std::chrono::milliseconds deadline, Tell tell);
  ~MpiWatcher();
  MpiWatcher(const MpiWatcher&) = delete;
  MpiWatcher& operator=(const MpiWatcher&) = delete;

 private:
  void watch();
  bool look();

  MpiBoard& board_;
  std::chrono::milliseconds deadline_;
  Tell tell_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace shoestring
