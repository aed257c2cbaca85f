#pragma once
// Inside of comm/in_process: the messages of a world of threads, and the transport over them.

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "parallel/comm/failure_text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/transport.h"

namespace shoestring {

// One lock for a world: ranks are few and copies are made outside of it. A message wakes its
// receiver's call alone, not what else that rank waits for.
class InProcessWorld::Shared {
 public:
  // A message that waits for its receiver. The sender stays in transfer() until it is done or taken
  // back, so the pointer is valid whenever the post is reachable.
  struct Post {
    const std::byte* data = nullptr;
    size_t bytes = 0;
    int from = 0, to = 0;
    bool taken = false;  // the receiver is copying: the sender may not leave
    bool done = false;
  };

  // The ranks of one communicator and the messages between them.
  struct Group {
    Group(std::string name, std::vector<int> world_ranks)
        : name(std::move(name)), world_ranks(std::move(world_ranks)) {}
    size_t size() const { return world_ranks.size(); }
    std::deque<Post*>& channel(int from, int to) {
      return posted[static_cast<size_t>(from) * size() + static_cast<size_t>(to)];
    }
    std::string name;
    std::vector<int> world_ranks;
    std::unordered_map<size_t, std::deque<Post*>> posted;  // of pairs that ever spoke
    // Children that not all members have picked up yet, by (split, colour).
    struct Pending {
      std::shared_ptr<Group> group;
      size_t missing;
    };
    std::map<std::pair<int64_t, int>, Pending> children;
  };

  // A call that waits: a rank may have several under way, on communicators of their own.
  struct Waiter {
    const Group* group;
    std::condition_variable changed = {};
  };

  Shared(int ranks, InProcessOptions o)
      : options(std::move(o)),
        left(static_cast<size_t>(ranks)),
        waiting(left.size()),
        places(left.size()) {
    std::vector<int> all(left.size());
    for (int r = 0; r < ranks; ++r) all[static_cast<size_t>(r)] = r;
    world = std::make_shared<Group>(options.name, std::move(all));
  }
  void wake(int world_rank, const Group& group) {
    for (Waiter* w : waiting[static_cast<size_t>(world_rank)]) {
      if (w->group == &group) w->changed.notify_all();
    }
  }
  void wake_all() {
    for (const auto& of_rank : waiting) {
      for (Waiter* w : of_rank) w->changed.notify_all();
    }
  }
  void abort(int world_rank, std::string_view reason) noexcept {
    std::lock_guard lock(mutex);
    abort_locked(world_rank, reason);
  }
  // `cause`: the rank to blame, where it is another.
  void abort_locked(int world_rank, std::string_view reason, int cause = -1) noexcept {
    if (aborted_by < 0) {
      aborted_by = world_rank;
      abort_cause = cause < 0 ? world_rank : cause;
      abort_reason = reason;
    }
    wake_all();
  }
  Board board() const {
    Board all;
    for (const Whereabouts& place : places) all.push_back(&place);
    return all;
  }

  std::mutex mutex;
  InProcessOptions options;
  int aborted_by = -1, abort_cause = -1;
  std::string abort_reason;
  std::vector<bool> left;
  bool none_left = true;
  std::vector<std::vector<Waiter*>> waiting;  // by world rank
  std::vector<Whereabouts> places;            // ditto
  std::shared_ptr<Group> world;
};

std::unique_ptr<Transport> in_process_transport(std::shared_ptr<InProcessWorld::Shared> shared,
                                                int rank);

}  // namespace shoestring
