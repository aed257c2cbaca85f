#pragma once
// Where a rank is: phase of the run, instruction, parameter and calls under way. Each rank writes
// its own as it goes, in words that others may read at any time: other threads and, where the
// memory is shared, other processes, also when the rank is stopped or dead. From them a failure is
// told (comm/failure_text.h). Writing costs some nanoseconds and waits for nobody.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/instruction.h"

namespace shoestring {

// A short text that one thread writes while others read; what is beyond 8 words is cut off.
template <size_t words>
class SharedText {
 public:
  void set(std::string_view text) noexcept;
  std::string get() const;

 private:
  std::array<std::atomic<uint64_t>, words> words_{};
};

class Whereabouts {
 public:
  // One transfer of a call.
  struct Call {
    enum State : int32_t { none, under_way, given_up };
    std::atomic<int32_t> state{none};
    std::atomic<bool> by_worker{false};  // of a stream: the rank itself may be elsewhere
    std::atomic<int64_t> sequence{0}, bytes{0};
    SharedText<2> op;
    SharedText<5> group;
    // Ranks of the world whose messages, or whose taking of ours, it lacks; -1: none, or not yet
    // known. Told when a wait is long.
    std::array<std::atomic<int32_t>, 8> lacks;
  };
  enum State : int32_t { not_begun, running, left };

  // --- written by the rank ---
  void begin(int rank, int64_t process, std::string_view host) noexcept;
  void leave() noexcept { state_ = left; }
  // "update" of a step, counted from 1; 0: of none. Forgets instruction and parameter. An empty
  // phase: what happens has to do with no place.
  void enter(std::string_view phase, int64_t step) noexcept;
  void enter(const Instruction& instruction) noexcept;
  void set_micro_batch(int64_t global) noexcept { micro_.store(global, relaxed); }
  void set_parameter(std::string_view name) noexcept { parameter_.set(name); }

  // Of an MPI call without a deadline; nullptr: it is over.
  void set_blocked(const char* in) noexcept;

  // --- read by anybody ---
  State state() const { return static_cast<State>(state_.load()); }
  int number() const { return number_.load(relaxed); }  // in the world
  int64_t process() const { return process_.load(relaxed); }
  std::string host() const { return host_.get(); }
  // "step 3, 1I0 (input gradient of stage 1, micro-batch 5 of the step), layers.1.mlp.up";
  // empty: not told.
  std::string place() const;
  // The same in short: "step 3, 1I0", or "1I0" where the step is `told`.
  std::string short_place(int64_t told) const;
  int64_t step() const { return step_.load(relaxed); }
  bool in_step() const { return step() > 0; }
  std::string blocked_in() const { return blocked_in_.get(); }
  std::chrono::milliseconds blocked_for() const;
  // The calls that keep the rank itself from going on, or that it gave up.
  std::vector<const Call*> waits() const;

 private:
  friend class CallRecord;
  friend class Awaiting;
  static constexpr auto relaxed = std::memory_order_relaxed;
  static constexpr size_t num_calls = 12;

  std::atomic<int32_t> state_{not_begun}, awaiting_{0}, number_{0};
  std::atomic<int64_t> process_{0}, step_{0}, micro_{-1}, blocked_since_{0};
  std::atomic<uint64_t> instruction_{0};
  std::atomic<bool> in_instruction_{false};
  SharedText<8> host_, parameter_;
  SharedText<4> phase_, blocked_in_;
  std::array<Call, num_calls> calls_;
};

// "all_reduce #17 of 'tp/2' (4096 bytes)", and the ranks that it lacks.
std::string call_text(const Whereabouts::Call& call);
std::vector<int> lacking(const Whereabouts::Call& call);

// Of the rank that the calling thread works for; null: of none. Threads that a rank starts work for
// none until a scope says so; calls on the workers of its streams are told by their communicators.
Whereabouts* whereabouts();
class WhereaboutsScope {
 public:
  explicit WhereaboutsScope(Whereabouts* rank);
  ~WhereaboutsScope();
  WhereaboutsScope(const WhereaboutsScope&) = delete;
  WhereaboutsScope& operator=(const WhereaboutsScope&) = delete;

 private:
  Whereabouts* before_;
};
// Whereabouts::enter for the calling thread's rank, if it has one.
void enter_phase(std::string_view phase, int64_t step = 0);

// Told of each wait of the calling thread that is over, a wait inside another one apart. Null:
// nobody is. The listener outlives its use.
using WaitListener =
    std::function<void(std::string_view what, std::chrono::steady_clock::time_point begin,
                       std::chrono::steady_clock::time_point end)>;
void listen_to_waits(const WaitListener* listener);

// While it lives, the calling thread's rank waits for what the workers of its streams do. `what`,
// in a word or two, outlives it.
class Awaiting {
 public:
  // Whom it waits for: workers, whose calls are then what the rank waits for; or another thread of
  // the rank's own, which tells its calls itself and may hang without one.
  enum class For : uint8_t { workers, own_thread };
  explicit Awaiting(std::string_view what, For whom = For::workers);
  ~Awaiting();
  Awaiting(const Awaiting&) = delete;
  Awaiting& operator=(const Awaiting&) = delete;

 private:
  Whereabouts* rank_;
  std::string_view what_;
  std::chrono::steady_clock::time_point begin_;  // where somebody listens
};

// A transfer while it is under way. One that an exception ends counts as given up for good, where
// the rank waited for it.
class CallRecord {
 public:
  struct What {
    std::string_view op, group;
    int64_t sequence = 0, bytes = 0;
  };
  CallRecord(Whereabouts& rank, const What& what);
  ~CallRecord();
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  void lacks(std::span<const int> world_ranks) noexcept;

 private:
  Whereabouts& rank_;
  Whereabouts::Call* call_ = nullptr;  // null: more calls at once than there is room for
  int exceptions_;
};

// How long a wait is before it tells what it lacks.
inline constexpr std::chrono::milliseconds long_wait{20};

}  // namespace shoestring
