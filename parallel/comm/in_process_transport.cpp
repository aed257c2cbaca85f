#include "parallel/comm/in_process_transport.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include "core/text.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;
using Shared = InProcessWorld::Shared;
using Group = Shared::Group;
using Post = Shared::Post;
using Waiter = Shared::Waiter;

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
  std::vector<int> lacking(const Work& work) const;
  void check_alive(const Work& work);
  void check_deadline(const Work& work) const;
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
  size_t bytes[2] = {};
  for (const Outgoing& s : sends) bytes[0] += s.bytes;
  for (const Incoming& r : receives) bytes[1] += r.bytes;
  CallRecord record(shared_->places[static_cast<size_t>(world_rank(rank_))],
                    {.op = call.op,
                     .group = group_->name,
                     .sequence = call.sequence,
                     .bytes = static_cast<int64_t>(std::max(bytes[0], bytes[1]))});
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
      const auto look = std::min(work.deadline, Clock::now() + long_wait);
      if (work.waiter.changed.wait_until(lock, look) == std::cv_status::timeout) {
        record.lacks(lacking(work));
        check_deadline(work);
      }
    }
  } catch (const NoAnswer& error) {
    shared_->abort_locked(world_rank(rank_), error.what(), error.cause());
    take_back(work, lock);
    throw;
  } catch (const std::exception& error) {
    record.lacks(lacking(work));
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

// The peers that this call still needs, by their ranks in the world.
std::vector<int> InProcessTransport::lacking(const Work& work) const {
  std::vector<int> ranks;
  const auto add = [&](int peer) {
    const int rank = world_rank(peer);
    if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) ranks.push_back(rank);
  };
  for (const auto& wanted : work.wanted) {
    if (wanted) add(wanted->peer);
  }
  for (const Post& post : work.posts) {
    if (!post.done && !post.taken) add(post.to);
  }
  return ranks;
}

void InProcessTransport::check_alive(const Work& work) {
  if (shared_->aborted_by >= 0) {
    throw PeerFailure(cat("rank ", world_rank(rank_), " gave up ", text(work.call), ": rank ",
                          shared_->aborted_by, " failed: ", shared_->abort_reason));
  }
  if (shared_->none_left) return;
  for (const int rank : lacking(work)) {
    if (!shared_->left[static_cast<size_t>(rank)]) continue;
    fail(cat("rank ", rank, " ended while rank ", world_rank(rank_), " waits for it in ",
             text(work.call)),
         no_place);
  }
}

void InProcessTransport::check_deadline(const Work& work) const {
  if (Clock::now() < work.deadline) return;
  const std::vector<int> ranks = lacking(work);
  if (ranks.empty()) return;
  const auto cause = awaited_in_the_end(shared_->board(), world_rank(rank_), ranks);
  throw NoAnswer(unanswered_text({.waiting = world_rank(rank_),
                                  .call = text(work.call),
                                  .deadline = shared_->options.deadline.count(),
                                  .lacking = ranks},
                                 cause),
                 cause.value_or(-1));
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

std::unique_ptr<Transport> in_process_transport(std::shared_ptr<InProcessWorld::Shared> shared,
                                                int rank) {
  std::shared_ptr<Shared::Group> world = shared->world;
  return std::make_unique<InProcessTransport>(std::move(shared), std::move(world), rank);
}

}  // namespace shoestring
