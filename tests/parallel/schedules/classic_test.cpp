#include "parallel/schedules/generators.h"

#include <gtest/gtest.h>

#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// As published: copied from a fact sheet that was checked against the authors' programs.
TEST(OneForwardOneBackward, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {"F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7",
                                           "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 B6 B7",
                                           "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 B7",
                                           "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7"};
  EXPECT_EQ(orders_of({.name = "1f1b", .ranks = 4, .micros = 8}), orders);
}

TEST(Interleaved, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 F3 f0 f1 f2 f3 F4 F5 F6 b0 F7 b1 f4 b2 f5 b3 f6 B0 f7 B1 B2 B3 b4 b5 b6 b7 "
      "B4 B5 B6 B7",
      "F0 F1 F2 F3 f0 f1 f2 f3 F4 b0 F5 b1 F6 b2 F7 b3 f4 B0 f5 B1 f6 B2 f7 B3 b4 b5 b6 b7 "
      "B4 B5 B6 B7",
      "F0 F1 F2 F3 f0 f1 f2 b0 f3 b1 F4 b2 F5 b3 F6 B0 F7 B1 f4 B2 f5 B3 f6 b4 f7 b5 b6 b7 "
      "B4 B5 B6 B7",
      "F0 F1 F2 F3 f0 b0 f1 b1 f2 b2 f3 b3 F4 B0 F5 B1 F6 B2 F7 B3 f4 b4 f5 b5 f6 b6 f7 b7 "
      "B4 B5 B6 B7"};
  EXPECT_EQ(orders_of({.name = "interleaved-1f1b", .ranks = 4, .micros = 8}), orders);
}

TEST(Classic, MakespansAndPeaksOfFourRanksAndEightMicroBatches) {
  const auto figures = [](const char* name) {
    const Simulation s = simulate(make_schedule({.name = name, .ranks = 4, .micros = 8}), {});
    std::vector<double> list = {s.makespan};
    for (const SimulatedRank& rank : s.ranks) list.push_back(rank.peak_activations);
    return list;
  };
  EXPECT_EQ(figures("gpipe"), (std::vector<double>{33, 8, 8, 8, 8}));
  EXPECT_EQ(figures("1f1b"), (std::vector<double>{33, 4, 3, 2, 1}));
  EXPECT_EQ(figures("interleaved-1f1b"), (std::vector<double>{28.5, 5.5, 4.5, 3.5, 2.5}));
}

TEST(Classic, MoreChunksDivideTheBubble) {
  for (int chunks : {2, 3, 4}) {
    const Schedule schedule =
        make_schedule({.name = "interleaved-1f1b", .ranks = 4, .micros = 12, .chunks = chunks});
    EXPECT_NEAR(simulate(schedule, {}).makespan, 36 + 9.0 / chunks, 1e-9) << chunks;
  }
}

}  // namespace
}  // namespace shoestring
