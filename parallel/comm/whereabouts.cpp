#include "parallel/comm/whereabouts.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>

#include "core/text.h"

namespace shoestring {
namespace {

thread_local Whereabouts* of_this_thread = nullptr;
thread_local const WaitListener* wait_listener = nullptr;
thread_local int waits_here = 0;  // one inside the other

int64_t milliseconds_now() {
  using std::chrono::milliseconds;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<milliseconds>(now).count();
}

std::string_view phrase_of(Do what) {
  constexpr std::string_view phrases[] = {
      "forward",
      "backward",
      "input gradient",
      "weight gradient",
      "sending of the activation",
      "receipt of the activation",
      "sending of the gradient",
      "receipt of the gradient",
      "gathering of the weights",
      "release of the weights",
      "sum of the gradients",
  };
  const auto at = static_cast<size_t>(what);
  return at < std::size(phrases) ? phrases[at] : "nothing known";
}

}  // namespace

template <size_t words>
void SharedText<words>::set(std::string_view text) noexcept {
  const size_t used = std::min(words, text.size() / 8 + 1);
  for (size_t w = 0; w < used; ++w) {
    uint64_t word = 0;
    const size_t rest = std::min<size_t>(8, text.size() - 8 * w);
    if (rest > 0) std::memcpy(&word, text.data() + 8 * w, rest);
    words_[w].store(word, std::memory_order_relaxed);
  }
}

template <size_t words>
std::string SharedText<words>::get() const {
  char text[8 * words + 1] = {};
  for (size_t w = 0; w < words; ++w) {
    const uint64_t word = words_[w].load(std::memory_order_relaxed);
    std::memcpy(text + 8 * w, &word, 8);
  }
  return text;
}

template class SharedText<2>;
template class SharedText<4>;
template class SharedText<5>;
template class SharedText<8>;

void Whereabouts::begin(int rank, int64_t process, std::string_view host) noexcept {
  number_.store(rank, relaxed);
  process_.store(process, relaxed);
  micro_.store(-1, relaxed);
  host_.set(host);
  state_ = running;
}

void Whereabouts::enter(std::string_view phase, int64_t step) noexcept {
  in_instruction_.store(false, relaxed);
  step_.store(step, relaxed);
  phase_.set(phase);
  parameter_.set("");
}

void Whereabouts::enter(const Instruction& instruction) noexcept {
  micro_.store(-1, relaxed);
  parameter_.set("");
  instruction_.store(std::bit_cast<uint64_t>(instruction), relaxed);
  in_instruction_.store(true, relaxed);
}

void Whereabouts::set_blocked(const char* in) noexcept {
  if (in != nullptr) blocked_in_.set(in);
  blocked_since_.store(in == nullptr ? 0 : milliseconds_now(), relaxed);
}

std::chrono::milliseconds Whereabouts::blocked_for() const {
  const int64_t since = blocked_since_.load(relaxed);
  return std::chrono::milliseconds(since == 0 ? 0 : milliseconds_now() - since);
}

std::string Whereabouts::place() const {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!part.empty()) append(text, text.empty() ? "" : ", ", part);
  };
  if (const int64_t step = step_.load(relaxed); step > 0) add(cat("step ", step));
  if (in_instruction_.load(relaxed)) {
    const auto i = std::bit_cast<Instruction>(instruction_.load(relaxed));
    const int64_t micro = micro_.load(relaxed);
    add(cat(instruction_text(i), " (", phrase_of(i.what), " of stage ", i.stage, ", ",
            micro < 0 ? cat("the rank's micro-batch ", i.micro)
                      : cat("micro-batch ", micro, " of the step"),
            ")"));
  } else {
    add(phase_.get());
  }
  add(parameter_.get());
  return text;
}

std::string Whereabouts::short_place(int64_t told) const {
  const bool inside = in_instruction_.load(relaxed);
  const std::string at =
      inside ? instruction_text(std::bit_cast<Instruction>(instruction_.load(relaxed)))
             : phase_.get();
  if (step() == 0 || step() == told) return at;
  return cat("step ", step(), at.empty() ? "" : ", ", at);
}

std::vector<const Whereabouts::Call*> Whereabouts::waits() const {
  std::vector<const Call*> own, of_workers;
  const bool awaits = awaiting_.load(relaxed) > 0;
  for (const Call& call : calls_) {
    const int32_t state = call.state.load(std::memory_order_acquire);
    if (state == Call::none) continue;
    if (!call.by_worker.load(relaxed)) own.push_back(&call);
    if (call.by_worker.load(relaxed) && (awaits || state == Call::given_up)) {
      of_workers.push_back(&call);
    }
  }
  return own.empty() ? of_workers : own;
}

std::string call_text(const Whereabouts::Call& call) {
  return cat(call.op.get(), " #", call.sequence.load(), " of '", call.group.get(), "' (",
             call.bytes.load(), " bytes)");
}

std::vector<int> lacking(const Whereabouts::Call& call) {
  std::vector<int> ranks;
  for (const auto& rank : call.lacks) {
    const int32_t r = rank.load(std::memory_order_relaxed);
    if (r < 0) break;
    ranks.push_back(r);
  }
  return ranks;
}

Whereabouts* whereabouts() { return of_this_thread; }

WhereaboutsScope::WhereaboutsScope(Whereabouts* rank) : before_(of_this_thread) {
  of_this_thread = rank;
}
WhereaboutsScope::~WhereaboutsScope() { of_this_thread = before_; }

void enter_phase(std::string_view phase, int64_t step) {
  if (of_this_thread != nullptr) of_this_thread->enter(phase, step);
}

void listen_to_waits(const WaitListener* listener) { wait_listener = listener; }

Awaiting::Awaiting(std::string_view what, For whom)
    : rank_(whom == For::workers ? of_this_thread : nullptr), what_(what) {
  ++waits_here;
  if (wait_listener != nullptr) begin_ = std::chrono::steady_clock::now();
  if (rank_ != nullptr) ++rank_->awaiting_;
}
Awaiting::~Awaiting() {
  const bool told = --waits_here == 0 && wait_listener != nullptr &&
                    begin_ != std::chrono::steady_clock::time_point();
  if (told) (*wait_listener)(what_, begin_, std::chrono::steady_clock::now());
  if (rank_ != nullptr) --rank_->awaiting_;
}

CallRecord::CallRecord(Whereabouts& rank, const What& what)
    : rank_(rank), exceptions_(std::uncaught_exceptions()) {
  for (Whereabouts::Call& call : rank.calls_) {
    int32_t free = Whereabouts::Call::none;
    if (call.state.load(std::memory_order_relaxed) != free) continue;
    if (!call.state.compare_exchange_strong(free, Whereabouts::Call::under_way)) continue;
    call.by_worker.store(of_this_thread != &rank, std::memory_order_relaxed);
    call.sequence.store(what.sequence, std::memory_order_relaxed);
    call.bytes.store(what.bytes, std::memory_order_relaxed);
    call.op.set(what.op);
    call.group.set(what.group);
    call.lacks[0].store(-1, std::memory_order_relaxed);
    call_ = &call;
    return;
  }
}

CallRecord::~CallRecord() {
  if (call_ == nullptr) return;
  // What a worker gives up while the rank is busy is not what the rank waits for.
  const bool failed = std::uncaught_exceptions() > exceptions_ &&
                      (!call_->by_worker.load() || rank_.awaiting_.load() > 0);
  call_->state.store(failed ? Whereabouts::Call::given_up : Whereabouts::Call::none,
                     std::memory_order_release);
}

void CallRecord::lacks(std::span<const int> world_ranks) noexcept {
  if (call_ == nullptr) return;
  auto& list = call_->lacks;
  const size_t told = std::min(world_ranks.size(), list.size());
  for (size_t i = 0; i < told; ++i) list[i].store(world_ranks[i], std::memory_order_relaxed);
  if (told < list.size()) list[told].store(-1, std::memory_order_relaxed);
}

}  // namespace shoestring
