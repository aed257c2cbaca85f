#include "parallel/comm/throttled.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/text.h"
#include "parallel/comm/decorator.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

class Throttled : public Decorator {
 public:
  template <class Inner>
  Throttled(Inner&& inner, LinkSpeed speed) : Decorator(std::forward<Inner>(inner)), speed_(speed) {
    if (!(speed.bytes_per_second > 0) || !(speed.latency_seconds >= 0)) {
      fail_usage(cat("a link of ", speed.bytes_per_second, " bytes/s and ", speed.latency_seconds,
                     " s latency"));
    }
  }

 protected:
  void before(const Call& call, Stream& stream) override {
    const auto bytes = static_cast<double>(
        std::max(bytes_sent(call, rank(), size()), bytes_received(call, rank(), size())));
    const std::chrono::duration<double> least(speed_.latency_seconds +
                                              bytes / speed_.bytes_per_second);
    end_ = std::make_shared<Clock::time_point>();
    stream.run([end = end_, least] {
      *end = Clock::now() + std::chrono::duration_cast<Clock::duration>(least);
    });
  }
  void after(const Call&, Stream& stream) override {
    stream.run([end = std::move(end_)] { std::this_thread::sleep_until(*end); });
  }
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<Throttled>(std::move(child), speed_);
  }

 private:
  LinkSpeed speed_;
  std::shared_ptr<Clock::time_point> end_;  // of the call that is being enqueued
};

}  // namespace

std::unique_ptr<Communicator> throttled(Communicator& inner, LinkSpeed speed) {
  return std::make_unique<Throttled>(inner, speed);
}

}  // namespace shoestring
