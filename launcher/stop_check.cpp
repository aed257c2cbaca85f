#include "launcher/stop_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "launcher/signals.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

constexpr double interval = 0.25;  // seconds between questions
constexpr double most_pieces = 1e6;

}  // namespace

bool StopCheck::ask(bool done) {
  std::vector<double> x{stop_signal() != 0 ? 1.0 : 0.0, done ? 1.0 : 0.0, pace_};
  ranks_.all_reduce(buffer_of(std::span(x)), Reduce::max, stream_);
  {
    const Awaiting waits("whether to stop");
    stream_.synchronize();
  }
  stopped_ = x[0] > 0;
  // From what all ranks know now, so that they count alike. Without a pace yet: every time.
  every_ =
      x[2] > 0 ? static_cast<int64_t>(std::clamp(std::floor(interval / x[2]), 1., most_pieces)) : 1;
  calls_ = 0;
  asked_ = Clock::now();
  return x[1] > 0;
}

bool StopCheck::now() {
  if (!stopped_) ask(false);
  return stopped_;
}

bool StopCheck::between() {
  if (stopped_ || ++calls_ < every_) return stopped_;
  return now();
}

bool StopCheck::lead() {
  const double passed = std::chrono::duration<double>(Clock::now() - asked_).count();
  if (!stopped_ && passed >= interval) ask(false);
  return stopped_;
}

void StopCheck::lead_done() {
  if (!stopped_) ask(true);
}

void StopCheck::follow() {
  while (!stopped_ && !ask(false)) {
  }
}

}  // namespace shoestring
