#include "parallel/schedules/generators.h"

#include <gtest/gtest.h>

#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// The heuristic with p and 2p micro-batches' memory is no slower than the orders by hand.
TEST(Automatic, IsNoSlowerThanZeroBubbleByHand) {
  for (int p : {2, 4, 7, 8}) {
    for (const StepTimes& times : {StepTimes{}, StepTimes{.f = 1, .i = 1.2, .w = 0.8}}) {
      const int m = 3 * p;
      const auto makespan = [&](const char* name, std::optional<double> memory) {
        const Schedule schedule = make_schedule(
            {.name = name, .ranks = p, .micros = m, .times = times, .memory = memory});
        const Simulation result = simulate(schedule, times);
        EXPECT_LE(worst_peak(result), memory.value_or(2 * p - 1) + 1e-9);
        return result.makespan;
      };
      EXPECT_LE(makespan("automatic", p), makespan("zb-h1", p) + 1e-9) << p;
      EXPECT_LE(makespan("automatic", 2 * p), makespan("zb-h2", 2 * p) + 1e-9) << p;
    }
  }
}

TEST(Automatic, MoreMemoryIsNotSlower) {
  double before = 1e9;
  for (double memory : {1.0, 2.0, 4.0, 8.0}) {
    const Schedule schedule =
        make_schedule({.name = "automatic", .ranks = 4, .micros = 12, .memory = memory});
    const Simulation result = simulate(schedule, {});
    EXPECT_LE(worst_peak(result), memory);
    EXPECT_LE(result.makespan, before);
    before = result.makespan;
  }
  EXPECT_EQ(before, 36 + 3);  // only the way to the last rank is left
}

}  // namespace
}  // namespace shoestring
