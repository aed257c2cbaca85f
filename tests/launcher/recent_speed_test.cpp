#include "launcher/recent_speed.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(RecentSpeed, FollowsTheLastSteps) {
  RecentSpeed speed;
  EXPECT_EQ(speed.tokens_per_second(), 0);
  EXPECT_EQ(speed.flop_per_second(), 0);
  speed.add({.tokens = 100, .flop = 600, .seconds = 2});
  EXPECT_DOUBLE_EQ(speed.tokens_per_second(), 50);
  EXPECT_DOUBLE_EQ(speed.flop_per_second(), 300);
  speed.add({.tokens = 100, .flop = 600, .seconds = 1});
  EXPECT_DOUBLE_EQ(speed.tokens_per_second(), 190 / 2.8);
  for (int i = 0; i < 100; ++i) speed.add({.tokens = 100, .flop = 600, .seconds = 1});
  EXPECT_NEAR(speed.tokens_per_second(), 100, 0.01);
}

// Both figures are of one window: their ratio is that of the work, whatever the times were.
TEST(RecentSpeed, RatesShareTheirWindow) {
  RecentSpeed speed;
  for (double seconds : {9.0, 1.0, 0.5, 4.0}) {
    speed.add({.tokens = 64, .flop = 6400, .seconds = seconds});
    EXPECT_DOUBLE_EQ(speed.flop_per_second(), 100 * speed.tokens_per_second());
  }
}

}  // namespace
}  // namespace shoestring
