#include "parallel/comm/run_ranks.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/log.h"
#include "core/text.h"
#include "parallel/comm/in_process_transport.h"
#include "parallel/comm/rank_environment.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {

RankError::RankError(int rank, const std::string& message, ExitCode code)
    : Error(with_rank(rank, message), code, no_place), rank_(rank) {}

namespace {

struct Failure {
  std::string message;
  ExitCode code = ExitCode::fault;
  bool consequence = false;
  int rank = -1;  // to blame
};

Failure describe(std::exception_ptr error, int rank) {
  try {
    std::rethrow_exception(error);
  } catch (const PeerFailure& e) {
    return {e.what(), e.code(), true, rank};
  } catch (const NoAnswer& e) {
    return {e.what(), e.code(), false, e.cause() < 0 ? rank : e.cause()};
  } catch (const Error& e) {
    return {text_of_error(e), e.code(), false, rank};
  } catch (const std::exception& e) {
    return {e.what(), ExitCode::fault, false, rank};
  } catch (...) {
    return {"an exception of an unknown type", ExitCode::fault, false, rank};
  }
}

class Run {
 public:
  Run(int ranks, const std::function<void(Communicator&)>& body, InProcessOptions options)
      : ranks_(ranks), body_(body), world_(ranks, std::move(options)) {}
  void operator()(const Patience& patience);

 private:
  void run_one(int rank);
  void wait(const Patience& patience, size_t threads);
  bool ends_late();
  RankError error() const;
  bool failing() const {
    const std::lock_guard lock(world_.shared().mutex);
    return world_.shared().aborted_by >= 0;
  }

  int ranks_;
  const std::function<void(Communicator&)>& body_;
  InProcessWorld world_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  size_t over_ = 0;
  std::chrono::steady_clock::time_point last_end_;
  std::optional<Failure> first_;  // causes come before consequences
  std::exception_ptr alone_;      // of the only rank: its number tells nobody more
};

void Run::run_one(int rank) {
  set_log_rank(ranks_ > 1 ? rank : -1);
  auto communicator = world_.communicator(rank);
  Whereabouts& place = world_.shared().places[static_cast<size_t>(rank)];
  place.begin(rank, ::getpid(), host_name());
  const WhereaboutsScope scope(&place);
  try {
    body_(*communicator);
    place.leave();
  } catch (...) {
    Failure failure = describe(std::current_exception(), rank);
    communicator->abort(failure.message);
    const std::lock_guard lock(mutex_);
    if (ranks_ == 1) alone_ = std::current_exception();
    if (!first_ || (first_->consequence && !failure.consequence)) first_ = std::move(failure);
  }
  world_.leave(rank);
  const std::lock_guard lock(mutex_);
  ++over_;
  last_end_ = std::chrono::steady_clock::now();
  ended_.notify_all();
}

// What is known of the failure, now.
RankError Run::error() const {
  InProcessWorld::Shared& world = world_.shared();
  Failure failure;
  {
    const std::lock_guard lock(mutex_);
    if (first_) failure = *first_;
  }
  if (failure.rank < 0 || failure.consequence) {  // the cause has thrown to nobody yet
    const std::lock_guard lock(world.mutex);
    failure.rank = world.abort_cause;
    failure.message = world.abort_reason;
  }
  return {failure.rank,
          failure_line({.message = failure.message, .code = failure.code, .rank = failure.rank},
                       world.board()),
          failure.code};
}

// Ranks that nobody waits for any more, because the others are done, have the deadline too.
bool Run::ends_late() {
  InProcessWorld::Shared& world = world_.shared();
  {
    const std::lock_guard lock(mutex_);
    const auto passed = std::chrono::steady_clock::now() - last_end_;
    if (over_ == 0 || passed < world.options.deadline) return false;
  }
  const std::lock_guard lock(world.mutex);
  for (int r = 0; r < ranks_; ++r) {
    if (world.left[static_cast<size_t>(r)]) continue;
    world.abort_locked(r, cat("rank ", r, " does not come to its end: others are there since ",
                              world.options.deadline.count(), " ms"));
    break;
  }
  return true;
}

void Run::wait(const Patience& patience, size_t threads) {
  constexpr std::chrono::milliseconds look{50};
  std::optional<std::chrono::steady_clock::time_point> failed;
  std::unique_lock lock(mutex_);
  while (over_ < threads) {
    ended_.wait_for(lock, look);
    lock.unlock();
    const auto now = std::chrono::steady_clock::now();
    if (!failed && (failing() || ends_late())) failed = now;
    if (failed && now - *failed >= patience.time) return patience.over(error());
    lock.lock();
  }
}

void Run::operator()(const Patience& patience) {
  std::vector<std::thread> threads;
  std::string missing;
  try {
    for (int r = 0; r < ranks_; ++r) threads.emplace_back([this, r] { run_one(r); });
  } catch (const std::system_error& error) {  // those that run wait for those that never will
    missing = cat("only ", threads.size(), " of ", ranks_, " threads could be started (",
                  error.what(), "); use fewer ranks");
    for (int r = static_cast<int>(threads.size()); r < ranks_; ++r) {
      world_.communicator(r)->abort(missing);
    }
  }
  if (patience.over) wait(patience, threads.size());
  for (auto& t : threads) t.join();
  if (!missing.empty()) fail_usage(missing);
  if (alone_) std::rethrow_exception(alone_);
  if (first_) throw error();
}

}  // namespace

void run_ranks(int ranks, const std::function<void(Communicator&)>& body,
               InProcessOptions options) {
  run_ranks(ranks, body, std::move(options), {});
}

void run_ranks(int ranks, const std::function<void(Communicator&)>& body, InProcessOptions options,
               const Patience& patience) {
  Run(ranks, body, std::move(options))(patience);
}

}  // namespace shoestring
