#include "parallel/schedules/generators.h"

#include <gtest/gtest.h>

#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// As published: copied from a fact sheet that was checked against the authors' programs.
TEST(DualPipe, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 f0 i0 w0 f1 F3&b1 f2&B0 b2 f3&B1 b3 I2 W2 I3 W3",
      "F0 f0 F1 f1 F2 b0 f2&B0 F3&b1 f3&B1 b2 B2 i3 I3 w3 W3",
      "f0 F0 f1 F1 f2 B0 F2&b0 f3&B1 F3&b1 B2 b2 I3 i3 W3 w3",
      "f0 f1 f2 F0 I0 W0 F1 f3&B1 F2&b0 B2 F3&b1 B3 i2 w2 i3 w3"};
  EXPECT_EQ(orders_of({.name = "dualpipe", .ranks = 4, .micros = 8}), orders);
}

TEST(DualPipeV, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 f0 i0 w0 f1 F3&b1 f2&B0 F4&b2 f3&B1 F5&b3 f4&B2 F6&b4 f5&B3 F7&b5 f6&B4 b6 "
      "f7&B5 b7 I6 W6 I7 W7",
      "F0 f0 F1 f1 F2 b0 f2&B0 F3&b1 f3&B1 F4&b2 f4&B2 F5&b3 f5&B3 F6&b4 f6&B4 F7&b5 f7&B5 "
      "b6 B6 i7 I7 w7 W7"};
  EXPECT_EQ(orders_of({.name = "dualpipev", .ranks = 2, .micros = 8}), orders);
}

// Idle time (p/2 - 1)(F&B + B - 3W) of every rank, and p + 1 activations.
TEST(DualPipe, IdleTimeAndMemoryAsPublished) {
  const Simulation s =
      simulate(make_schedule({.name = "dualpipe", .ranks = 8, .micros = 20}), {.fb = 3});
  EXPECT_EQ(s.makespan, 66);
  for (const SimulatedRank& rank : s.ranks) {
    EXPECT_EQ(rank.bubble, 6);
    EXPECT_EQ(rank.peak_activations, 9);
  }
}

// What lets the copies of a stage wait for one another (parallel/step_gradients.cpp).
TEST(DualPipe, RanksOfAPairRunOneProgramInOppositeDirections) {
  for (const int ranks : {2, 4, 8, 16}) {
    for (const int micros : {2 * ranks, 2 * ranks + 2, 6 * ranks}) {
      const Schedule s = make_schedule({.name = "dualpipe", .ranks = ranks, .micros = micros});
      for (int r = 0; r < ranks; ++r) {
        Program turned = s.ranks[static_cast<size_t>(r)];
        for (Instruction& i : turned) {
          i.micro = static_cast<int16_t>((i.micro + micros / 2) % micros);
        }
        EXPECT_EQ(turned, s.ranks[static_cast<size_t>(ranks - 1 - r)]) << ranks << ", " << r;
      }
    }
  }
}

// A pair that takes less than its parts is what the order is for.
TEST(DualPipe, PairsThatOverlapShortenIt) {
  const Schedule schedule = make_schedule({.name = "dualpipe", .ranks = 8, .micros = 20});
  EXPECT_LT(simulate(schedule, {.fb = 2.5}).makespan, 60);
}

}  // namespace
}  // namespace shoestring
