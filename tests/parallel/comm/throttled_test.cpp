#include "parallel/comm/throttled.h"

#include <gtest/gtest.h>

#include <chrono>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

TEST(Throttled, ACallTakesLatencyPlusBytesOverBandwidth) {
  run_ranks(2, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    // 25,000 floats: each of two ranks sends 100 kB in all, 50 ms here.
    const auto slow = throttled(world, {.bytes_per_second = 2e6, .latency_seconds = 0.02});
    std::vector<float> x(25000, 1.0f);
    const auto begin = Clock::now();
    slow->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    check(Clock::now() - begin >= std::chrono::milliseconds(70), "a slow link");
    check(x[0] == 2.0f && x[24999] == 2.0f, "the same result");
    auto child = slow->split(0, 0);
    const auto again = Clock::now();
    child->broadcast(buffer_of(std::span(x)), 0, stream);
    check(Clock::now() - again >= std::chrono::milliseconds(45), "splits are slow too");
  });
}

TEST(Throttled, SpeedsMustBePositive) {
  InProcessWorld world(1);
  const auto inner = world.communicator(0);
  EXPECT_THROW(throttled(*inner, {.bytes_per_second = 0}), Error);
  EXPECT_THROW(throttled(*inner, {.bytes_per_second = 1, .latency_seconds = -1}), Error);
}

}  // namespace
}  // namespace shoestring
