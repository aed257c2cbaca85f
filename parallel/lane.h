#pragma once
// Two passes of one rank interleaved by a program (docs/decisions/0004-segments-as-parts.md): each
// runs on a host thread of its own, a lane, and stops at the borders of its parts. The engine hands
// the right to compute from one to the other in the order of the program, never by timing; a part
// that travels gives it back at once, and its rows move while the other pass computes.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "core/tensor.h"
#include "parallel/instruction.h"

namespace shoestring {

// What a pass calls at its borders.
class PartGate {
 public:
  virtual ~PartGate() = default;
  // Of the pass's thread: what it enqueues runs at once, on that thread.
  virtual Stream& stream() = 0;
  // Before each part, in the order of the program (W behind I of the same part): waits until the
  // program has come to it.
  virtual void enter(Do what, int part) = 0;
  // In a part that travels: until leave() the pass touches only what is its own, memory and the
  // communicators of its direction. leave() waits until the program comes back to the pass.
  virtual void travel() = 0;
  virtual void leave() = 0;
  // What the pass hands on: behind the last part of F, behind I of part 0.
  virtual void give(Tensor result) = 0;
};

class Lane : private PartGate {
 public:
  Lane(Device& device, std::string name);
  ~Lane();  // ends a pass under way with an error inside it
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // The pass begins with the next go(). The one before is finished.
  void start(std::function<void(PartGate&)> pass);
  bool busy() const { return busy_; }
  // Runs the pass's next part, which must be this one: done when it returns or, when it travels,
  // under way. Errors of the pass are thrown here and by finish().
  void go(const Instruction& part);
  // Runs what is behind the last part.
  void finish();
  // What the pass gave, once.
  std::optional<Tensor> take() { return std::exchange(result_, {}); }
  // The pass ends at its next border; peers that it waits for have been told before.
  void abandon() noexcept;

  Stream& compute() { return compute_; }
  // How long go() and finish() waited for rows that travelled.
  double travel_seconds() const { return travel_seconds_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Step {
    Do what;
    int part;
  };
  Stream& stream() override { return compute_; }
  void enter(Do what, int part) override;
  void travel() override;
  void leave() override;
  void give(Tensor result) override { result_ = std::move(result); }
  void run(const std::function<void(PartGate&)>& pass);
  void wait_for_turn(Lock& lock);
  void hand_over(Lock& lock, std::optional<Step> step);

  std::mutex mutex_;
  std::condition_variable engine_, pass_;  // who is woken
  bool turn_ = false;                      // the pass has the right to compute
  bool travelling_ = false, done_ = true, abandoned_ = false;
  std::optional<Step> step_;  // the part that may begin
  std::exception_ptr error_;
  std::optional<Tensor> result_;
  bool busy_ = false;  // of the engine's thread
  double travel_seconds_ = 0;
  Stream compute_, thread_;
};

}  // namespace shoestring
