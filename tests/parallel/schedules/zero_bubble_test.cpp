#include "parallel/schedules/generators.h"

#include <gtest/gtest.h>

#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// As published: copied from a fact sheet that was checked against the authors' programs.
TEST(ZbH1, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 F3 I0 W0 F4 I1 W1 F5 I2 W2 F6 I3 W3 F7 I4 W4 I5 W5 I6 W6 I7 W7",
      "F0 F1 F2 I0 F3 I1 W0 F4 I2 W1 F5 I3 W2 F6 I4 W3 F7 I5 W4 I6 W5 I7 W6 W7",
      "F0 F1 I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 F6 I5 W3 F7 I6 W4 I7 W5 W6 W7",
      "F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 F6 I6 W3 F7 I7 W4 W5 W6 W7"};
  EXPECT_EQ(orders_of({.name = "zb-h1", .ranks = 4, .micros = 8}), orders);
}

TEST(ZbH2, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 F3 F4 F5 F6 I0 W0 F7 I1 W1 I2 W2 I3 W3 I4 W4 I5 W5 I6 W6 I7 W7",
      "F0 F1 F2 F3 F4 I0 F5 I1 F6 I2 W0 F7 I3 W1 I4 W2 I5 W3 I6 W4 I7 W5 W6 W7",
      "F0 F1 F2 I0 F3 I1 F4 I2 F5 I3 F6 I4 W0 F7 I5 W1 I6 W2 I7 W3 W4 W5 W6 W7",
      "F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 F5 I5 F6 I6 W0 F7 I7 W1 W2 W3 W4 W5 W6 W7"};
  EXPECT_EQ(orders_of({.name = "zb-h2", .ranks = 4, .micros = 8}), orders);
}

TEST(ZbV, EqualsThePublishedOrder) {
  const std::vector<std::string> orders = {
      "F0 F1 F2 F3 F4 F5 F6 f0 i0 w0 f1 i1 w1 f2 i2 w2 f3 i3 w3 F7 I0 W0 f4 i4 w4 I1 W1 f5 "
      "i5 w5 I2 W2 f6 i6 w6 I3 W3 f7 i7 w7 I4 W4 I5 W5 I6 W6 I7 W7",
      "F0 F1 F2 F3 F4 f0 F5 f1 i0 w0 f2 i1 w1 f3 i2 w2 F6 I0 W0 f4 i3 w3 F7 I1 W1 f5 i4 w4 "
      "I2 W2 f6 i5 w5 I3 W3 f7 i6 w6 I4 i7 I5 W4 I6 W5 I7 W6 w7 W7",
      "F0 F1 F2 f0 F3 f1 F4 f2 i0 w0 f3 i1 w1 F5 I0 W0 f4 i2 w2 F6 I1 W1 f5 i3 w3 F7 I2 W2 "
      "f6 i4 w4 I3 W3 f7 i5 w5 I4 i6 I5 i7 I6 W4 I7 W5 w6 w7 W6 W7",
      "F0 f0 F1 f1 F2 f2 F3 f3 i0 w0 F4 I0 W0 f4 i1 w1 F5 I1 W1 f5 i2 w2 F6 I2 W2 f6 i3 w3 "
      "F7 I3 W3 f7 i4 w4 I4 i5 I5 i6 I6 i7 I7 W4 w5 w6 w7 W5 W6 W7"};
  EXPECT_EQ(orders_of({.name = "zb-v", .ranks = 4, .micros = 8}), orders);
}

// Inside its own window no rank waits when all passes take as long as one another.
TEST(ZeroBubble, WindowsAreFull) {
  for (const char* name : {"zb-h2", "zb-v"}) {
    for (int p : {2, 4, 8}) {
      const Schedule schedule = make_schedule({.name = name, .ranks = p, .micros = 2 * p + 3});
      for (const SimulatedRank& rank : simulate(schedule, {}).ranks) {
        EXPECT_NEAR(rank.window_bubble, 0, 1e-9) << name << " of " << p;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
