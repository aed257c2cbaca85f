#include "parallel/schedules/generators.h"

#include <gtest/gtest.h>

#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// arXiv 2405.15362: with F = I = W about half and two thirds of 1F1B's bubble.
TEST(ControllableMemory, CostsWhatItSays) {
  for (int p = 4; p <= 16; ++p) {
    const int m = 3 * p;
    const double bubble = 3.0 * (p - 1);
    const auto idle = [&](const char* name) {
      const Schedule schedule = make_schedule({.name = name, .ranks = p, .micros = m});
      return simulate(schedule, {}).makespan - 3 * m;
    };
    EXPECT_LE(idle("v-half"), 0.55 * bubble + 0.5) << p;
    EXPECT_LE(idle("v-min"), 0.67 * bubble + 2) << p;
  }
}

// Of the worst rank: p/2 + 1 and about p/3 + 1 micro-batches, however many there are.
TEST(ControllableMemory, KeepsWhatItSays) {
  for (int m : {6, 20, 60}) {
    const auto peak = [&](const char* name) {
      return worst_peak(simulate(make_schedule({.name = name, .ranks = 6, .micros = m}), {}));
    };
    EXPECT_EQ(peak("v-half"), 4) << m;
    EXPECT_EQ(peak("v-min"), 3) << m;
    EXPECT_EQ(peak("1f1b"), 6) << m;
  }
}

}  // namespace
}  // namespace shoestring
