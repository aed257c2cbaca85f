#include "parallel/comm/mpi_watcher.h"

#include <utility>

#include "core/text.h"

namespace shoestring {
namespace {

// Between looks: one process asks for the life of the others of its machine.
constexpr std::chrono::milliseconds interval{50};
// After a death, until the others have come to wait for the dead one; launchers that end them for
// it leave them a second.
constexpr std::chrono::milliseconds until_others_wait{200};

}  // namespace

MpiWatcher::MpiWatcher(MpiBoard& board, std::chrono::milliseconds deadline, Tell tell)
    : board_(board), deadline_(deadline), tell_(std::move(tell)) {
  thread_ = std::thread([this] { watch(); });
}

MpiWatcher::~MpiWatcher() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void MpiWatcher::watch() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    changed_.wait_for(lock, interval);
    if (over_) return;
    lock.unlock();
    if (look()) return;
    lock.lock();
  }
}

// True when there is nothing more to see.
bool MpiWatcher::look() {
  if (const auto dead = board_.gone()) {
    std::this_thread::sleep_for(until_others_wait);
    tell_(cat("rank ", *dead, " is dead: its process was killed or crashed"), *dead);
    return true;
  }
  const Whereabouts& own = board_.own();
  const auto blocked = own.blocked_for();
  if (blocked < deadline_) return false;
  const auto lost = board_.lost();
  tell_(cat("MPI did not come back from ", own.blocked_in(), " within ", deadline_.count(), " ms",
            lost ? cat(": rank ", lost->rank, " does not answer") : std::string()),
        lost ? lost->rank : -1);
  return true;
}

}  // namespace shoestring
