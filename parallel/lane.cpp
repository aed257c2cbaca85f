#include "parallel/lane.h"

#include <chrono>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/communicator.h"

namespace shoestring {

Lane::Lane(Device& device, std::string name)
    : compute_(Stream::immediate(device)), thread_(Stream::worker(device, std::move(name))) {}

Lane::~Lane() { abandon(); }

void Lane::start(std::function<void(PartGate&)> pass) {
  check(!busy_, "a lane's pass begins before the one before it is over");
  {
    const std::lock_guard lock(mutex_);
    done_ = false;
    step_.reset();
    result_.reset();
  }
  busy_ = true;
  thread_.run([this, pass = std::move(pass), rank = whereabouts()] {
    const WhereaboutsScope scope(rank);
    run(pass);
  });
}

void Lane::run(const std::function<void(PartGate&)>& pass) {
  std::exception_ptr error;
  try {
    {
      Lock lock(mutex_);
      wait_for_turn(lock);
    }
    pass(*this);
    const std::lock_guard lock(mutex_);
    if (step_) {
      fail(cat("the program has a part ", name_of(step_->what), ".", step_->part,
               " that the pass does not have"));
    }
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  error_ = std::move(error);  // from here on the engine's alone
  turn_ = travelling_ = false;
  done_ = true;
  engine_.notify_all();
}

void Lane::wait_for_turn(Lock& lock) {
  pass_.wait(lock, [&] { return turn_ || abandoned_; });
  if (abandoned_) throw PeerFailure("the other pass of the pair has failed");
}

void Lane::enter(Do what, int part) {
  Lock lock(mutex_);
  if (!step_) {
    turn_ = false;
    engine_.notify_all();
    wait_for_turn(lock);
  }
  const std::optional<Step> step = std::exchange(step_, {});
  if (step && step->what == what && step->part == part) return;
  fail(cat("the pass is at its part ", name_of(what), ".", part, " but the program ",
           step ? cat("at ", name_of(step->what), ".", step->part) : "has no more parts of it"));
}

void Lane::travel() {
  const std::lock_guard lock(mutex_);
  turn_ = false;
  travelling_ = true;
  engine_.notify_all();
}

void Lane::leave() {
  Lock lock(mutex_);
  travelling_ = false;
  engine_.notify_all();
  wait_for_turn(lock);
}

void Lane::hand_over(Lock& lock, std::optional<Step> step) {
  if (travelling_) {
    const Awaiting waits("rows on their way", Awaiting::For::own_thread);
    const auto begin = std::chrono::steady_clock::now();
    engine_.wait(lock, [&] { return !travelling_; });
    travel_seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  if (!done_) {
    step_ = step;
    turn_ = true;
    pass_.notify_all();
    engine_.wait(lock, [&] { return !turn_; });
  }
  if (error_) {
    busy_ = false;
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void Lane::go(const Instruction& part) {
  Lock lock(mutex_);
  if (done_ && !error_) {
    fail(cat("the program goes on to ", instruction_text(part), " of a pass that is over"));
  }
  hand_over(lock, Step{part.what, part.part});
}

void Lane::finish() {
  if (!busy_) return;
  Lock lock(mutex_);
  hand_over(lock, {});
  check(done_, "the pass has parts that the program does not have");
  busy_ = false;
}

void Lane::abandon() noexcept {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    pass_.notify_all();
  }
  thread_.synchronize();
  const std::lock_guard lock(mutex_);
  abandoned_ = false;
  error_ = nullptr;
  busy_ = false;
}

}  // namespace shoestring
