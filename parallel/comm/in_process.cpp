#include "parallel/comm/in_process.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_map>

#include "core/log.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

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

}  // namespace

// One lock for a world: ranks are few and copies are made outside of it. A message wakes its
// receiver's call alone, not what else that rank waits for.
class InProcessWorld::Shared {
 public:
  Shared(int ranks, InProcessOptions o)
      : options(std::move(o)), left(static_cast<size_t>(ranks)), waiting(left.size()) {
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
  void abort_locked(int world_rank, std::string_view reason) noexcept {
    if (aborted_by < 0) {
      aborted_by = world_rank;
      abort_reason = reason;
    }
    wake_all();
  }

  std::mutex mutex;
  InProcessOptions options;
  int aborted_by = -1;
  std::string abort_reason;
  std::vector<bool> left;
  std::vector<std::vector<Waiter*>> waiting;  // by world rank
  std::shared_ptr<Group> world;
};

namespace {

using Shared = InProcessWorld::Shared;

class InProcessTransport : public Transport {
 public:
  InProcessTransport(std::shared_ptr<Shared> shared, std::shared_ptr<Group> group, int rank)
      : shared_(std::move(shared)), group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->size()); }
  const std::string& name() const override { return group_->name; }
  void transfer(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                CallName call) override;
  std::unique_ptr<Transport> child(const Child& child) override;
  void abort(std::string_view reason) noexcept override {
    shared_->abort(world_rank(rank_), reason);
  }

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Work {
    CallName call;
    Clock::time_point deadline;
    std::deque<Post> posts;                       // ours
    std::vector<std::optional<Incoming>> wanted;  // empty: arrived
    Waiter waiter;
  };
  // While the lock is held at both ends.
  class Registered {
   public:
    Registered(std::vector<Waiter*>& list, Waiter& waiter) : list_(list), waiter_(&waiter) {
      list_.push_back(waiter_);
    }
    ~Registered() { std::erase(list_, waiter_); }
    Registered(const Registered&) = delete;
    Registered& operator=(const Registered&) = delete;

   private:
    std::vector<Waiter*>& list_;
    Waiter* waiter_;
  };

  int world_rank(int rank) const { return group_->world_ranks[static_cast<size_t>(rank)]; }
  std::string text(CallName call) const {
    return cat(call.op, " #", call.sequence, " of '", group_->name, "'");
  }
  bool receive_next(Work& work, Lock& lock);
  void copy(Post& post, const Incoming& to, CallName call, Lock& lock);
  bool finished(const Work& work) const;
  int awaited(const Work& work, bool must_have_left) const;
  void check_alive(const Work& work);
  void take_back(Work& work, Lock& lock);

  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Group> group_;
  int rank_;
};

void InProcessTransport::transfer(std::span<const Outgoing> sends,
                                  std::span<const Incoming> receives, CallName call) {
  Work work{.call = call,
            .deadline = Clock::now() + shared_->options.deadline,
            .posts = {},
            .wanted = {receives.begin(), receives.end()},
            .waiter = {group_.get()}};
  Lock lock(shared_->mutex);
  const Registered registered(shared_->waiting[static_cast<size_t>(world_rank(rank_))],
                              work.waiter);
  for (const Outgoing& s : sends) {
    work.posts.push_back({.data = s.data, .bytes = s.bytes, .from = rank_, .to = s.peer});
    group_->channel(rank_, s.peer).push_back(&work.posts.back());
    shared_->wake(world_rank(s.peer), *group_);
  }
  try {
    while (true) {
      check_alive(work);
      if (receive_next(work, lock)) continue;
      if (finished(work)) return;
      if (work.waiter.changed.wait_until(lock, work.deadline) == std::cv_status::timeout &&
          Clock::now() >= work.deadline) {
        const int peer = awaited(work, false);
        if (peer < 0) continue;
        fail(cat("rank ", world_rank(rank_), " waited ", shared_->options.deadline.count(),
                 " ms for rank ", world_rank(peer), " in ", text(call)),
             no_place);
      }
    }
  } catch (const std::exception& error) {
    shared_->abort_locked(world_rank(rank_), error.what());
    take_back(work, lock);
    throw;
  }
}

// Takes the first message that is there; false when none is.
bool InProcessTransport::receive_next(Work& work, Lock& lock) {
  std::vector<bool> passed(group_->size());  // peers whose next message is for an earlier entry
  for (auto& wanted : work.wanted) {
    if (!wanted || passed[static_cast<size_t>(wanted->peer)]) continue;
    passed[static_cast<size_t>(wanted->peer)] = true;
    auto& channel = group_->channel(wanted->peer, rank_);
    if (channel.empty()) continue;
    Post& post = *channel.front();
    channel.pop_front();
    const Incoming to = *wanted;
    wanted.reset();
    copy(post, to, work.call, lock);
    return true;
  }
  return false;
}

void InProcessTransport::copy(Post& post, const Incoming& to, CallName call, Lock& lock) {
  const bool fits = post.bytes == to.bytes;
  if (fits && to.bytes > 0) {
    post.taken = true;
    lock.unlock();
    std::memcpy(to.data, post.data, to.bytes);
    lock.lock();
  }
  const size_t sent = post.bytes;
  const int from = post.from;
  post.done = true;  // from here on the post may be gone
  shared_->wake(world_rank(from), *group_);
  if (!fits) {
    fail(cat("rank ", world_rank(from), " sends ", sent, " bytes but rank ", world_rank(rank_),
             " expects ", to.bytes, " in ", text(call),
             "; the ranks make different calls, run with communication checks to see which"));
  }
}

bool InProcessTransport::finished(const Work& work) const {
  return std::none_of(work.wanted.begin(), work.wanted.end(), [](auto& w) { return bool(w); }) &&
         std::all_of(work.posts.begin(), work.posts.end(), [](auto& p) { return p.done; });
}

// A peer this call still needs; -1 when there is none.
int InProcessTransport::awaited(const Work& work, bool must_have_left) const {
  const auto counts = [&](int peer) {
    return !must_have_left || shared_->left[static_cast<size_t>(world_rank(peer))];
  };
  for (const auto& wanted : work.wanted) {
    if (wanted && counts(wanted->peer)) return wanted->peer;
  }
  for (const Post& post : work.posts) {
    if (!post.done && !post.taken && counts(post.to)) return post.to;
  }
  return -1;
}

void InProcessTransport::check_alive(const Work& work) {
  if (shared_->aborted_by >= 0) {
    throw PeerFailure(cat("rank ", world_rank(rank_), " gave up ", text(work.call), ": rank ",
                          shared_->aborted_by, " failed: ", shared_->abort_reason));
  }
  if (const int peer = awaited(work, true); peer >= 0) {
    fail(cat("rank ", world_rank(peer), " ended while rank ", world_rank(rank_),
             " waits for it in ", text(work.call)),
         no_place);
  }
}

// Before an error leaves transfer(): nobody may read our memory afterwards.
void InProcessTransport::take_back(Work& work, Lock& lock) {
  for (Post& post : work.posts) {
    auto& channel = group_->channel(rank_, post.to);
    if (auto at = std::find(channel.begin(), channel.end(), &post); at != channel.end()) {
      channel.erase(at);
      post.done = true;
    }
  }
  work.waiter.changed.wait(lock, [&] {
    return std::all_of(work.posts.begin(), work.posts.end(), [](auto& p) { return p.done; });
  });
}

std::unique_ptr<Transport> InProcessTransport::child(const Child& child) {
  if (child.members.empty()) return nullptr;
  std::lock_guard lock(shared_->mutex);
  const std::pair<int64_t, int> id{child.id, child.color};
  auto at = group_->children.find(id);
  if (at == group_->children.end()) {
    std::vector<int> world_ranks;
    for (int member : child.members) world_ranks.push_back(world_rank(member));
    auto group = std::make_shared<Group>(child.name, std::move(world_ranks));
    at = group_->children.emplace(id, Group::Pending{std::move(group), child.members.size()}).first;
  }
  const auto place = std::find(child.members.begin(), child.members.end(), rank_);
  auto result = std::make_unique<InProcessTransport>(
      shared_, at->second.group, static_cast<int>(place - child.members.begin()));
  if (--at->second.missing == 0) group_->children.erase(at);
  return result;
}

}  // namespace

InProcessWorld::InProcessWorld(int ranks, InProcessOptions options) {
  if (ranks < 1) fail_usage(cat("a world of ", ranks, " ranks"));
  shared_ = std::make_shared<Shared>(ranks, std::move(options));
}

std::unique_ptr<Communicator> InProcessWorld::communicator(int rank) {
  check(rank >= 0 && rank < static_cast<int>(shared_->left.size()), "a rank outside of its world");
  return make_communicator(std::make_unique<InProcessTransport>(shared_, shared_->world, rank));
}

void InProcessWorld::leave(int rank) noexcept {
  std::lock_guard lock(shared_->mutex);
  shared_->left[static_cast<size_t>(rank)] = true;
  shared_->wake_all();
}

RankError::RankError(int rank, const std::string& message, ExitCode code)
    : Error(with_rank(rank, message), code, no_place), rank_(rank) {}

namespace {

struct Failure {
  std::string message;
  ExitCode code = ExitCode::fault;
  bool consequence = false;
};

Failure describe(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const PeerFailure& e) {
    return {e.what(), e.code(), true};
  } catch (const Error& e) {
    return {text_of_error(e), e.code(), false};
  } catch (const std::exception& e) {
    return {e.what(), ExitCode::fault, false};
  } catch (...) {
    return {"an exception of an unknown type", ExitCode::fault, false};
  }
}

}  // namespace

void run_ranks(int ranks, const std::function<void(Communicator&)>& body,
               InProcessOptions options) {
  InProcessWorld world(ranks, std::move(options));
  std::mutex mutex;
  std::optional<std::pair<int, Failure>> first;  // causes come before consequences
  std::exception_ptr alone;                      // of the only rank: its number tells nobody more
  const auto run_one = [&](int rank) {
    set_log_rank(ranks > 1 ? rank : -1);
    auto communicator = world.communicator(rank);
    try {
      body(*communicator);
    } catch (...) {
      if (ranks == 1) alone = std::current_exception();
      Failure failure = describe(std::current_exception());
      communicator->abort(failure.message);
      std::lock_guard lock(mutex);
      if (!first || (first->second.consequence && !failure.consequence)) {
        first.emplace(rank, std::move(failure));
      }
    }
    world.leave(rank);
  };
  std::vector<std::thread> threads;
  std::string missing;
  try {
    for (int r = 0; r < ranks; ++r) threads.emplace_back(run_one, r);
  } catch (const std::system_error& error) {  // those that run wait for those that never will
    missing = cat("only ", threads.size(), " of ", ranks, " threads could be started (",
                  error.what(), "); use fewer ranks");
    for (int r = static_cast<int>(threads.size()); r < ranks; ++r) {
      world.communicator(r)->abort(missing);
    }
  }
  for (auto& t : threads) t.join();
  if (!missing.empty()) fail_usage(missing);
  if (alone) std::rethrow_exception(alone);
  if (first) {
    throw RankError(first->first, first->second.message, first->second.code);
  }
}

}  // namespace shoestring
