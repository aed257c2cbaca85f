#pragma once
// Inside of comm/mpi: what the communicators of a session share, and the transport over MPI.

#include <mpi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "parallel/comm/mpi.h"
#include "parallel/comm/mpi_watcher.h"
#include "parallel/comm/transport.h"

namespace shoestring {

struct MpiSession::State {
  MpiOptions options;
  int rank = 0, size = 1;
  std::unique_ptr<MpiBoard> board;
  std::unique_ptr<MpiWatcher> watcher;  // where there are several ranks
  std::atomic<bool> told = false;       // one line a process, and of a machine one
  std::mutex mutex;
  bool aborted = false;
  std::string reason;
  int cause = -1;  // the rank to blame, where it is another

  std::string abort_reason() {
    std::lock_guard lock(mutex);
    return aborted ? reason : std::string();
  }
  void abort(std::string_view why, int blamed = -1) noexcept {
    std::lock_guard lock(mutex);
    if (aborted) return;
    aborted = true;
    cause = blamed;
    reason = why.empty() ? "no reason given" : why;
  }
  // The line of a failure, on standard error; of a process, once.
  void tell(const std::string& message, ExitCode code, int blamed);
};

// An MPI call that has no deadline of its own: the watcher's.
class Blocking {
 public:
  Blocking(MpiSession::State& state, const char* in) : Blocking(state.board->own(), in) {}
  Blocking(Whereabouts& place, const char* in) : place_(place) { place_.set_blocked(in); }
  ~Blocking() { place_.set_blocked(nullptr); }
  Blocking(const Blocking&) = delete;
  Blocking& operator=(const Blocking&) = delete;

 private:
  Whereabouts& place_;
};

// An error that names the call where the code is one.
void call_mpi(int code, std::string_view what);

// Takes over `comm`.
std::unique_ptr<Transport> mpi_transport(std::shared_ptr<MpiSession::State> state, MPI_Comm comm,
                                         std::string name);

}  // namespace shoestring
