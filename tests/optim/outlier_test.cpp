#include "optim/outlier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/random.h"

namespace shoestring {
namespace {

TEST(Outlier, SaysNothingUntilTheWindowIsFull) {
  OutlierDetector detector(4);
  for (double x : {1.0, 2.0, 1e9, 2.0}) EXPECT_FALSE(detector.score(x));
  EXPECT_TRUE(detector.score(1.0));
}

TEST(Outlier, ScoresAgainstTheWindowBeforeTheValue) {
  OutlierDetector detector(4);
  for (double x : {1.0, 3.0, 1.0, 3.0}) detector.score(x);
  EXPECT_DOUBLE_EQ(*detector.score(7), 5);  // mean 2, deviation 1
  // Now 3, 1, 3, 7: mean 3.5, deviation sqrt(4.75).
  EXPECT_DOUBLE_EQ(*detector.score(3.5), 0);
}

TEST(Outlier, EqualValuesScoreZeroAndInfinityStaysOut) {
  OutlierDetector detector(3);
  for (int i = 0; i < 3; ++i) detector.score(2);
  EXPECT_EQ(*detector.score(std::numeric_limits<double>::quiet_NaN()),
            std::numeric_limits<double>::infinity());
  EXPECT_EQ(*detector.score(2), 0);
  EXPECT_EQ(detector.state(), (std::vector<double>{2, 2, 2}));
}

TEST(StepGuard, SkipsTheSpikeAndCountsIt) {
  StepGuard guard({.loss_z = 6, .norm_z = 6, .window = 32});
  const RandomStream stream(1, "losses");
  auto calm = [&](uint64_t i) {
    return guard.judge(3 + 0.1 * stream.normal(2 * i), 1 + 0.1 * stream.normal(2 * i + 1));
  };
  EXPECT_FALSE(guard.judge(100, 100).skip);  // the window is not full
  for (uint64_t i = 0; i < 100; ++i) EXPECT_FALSE(calm(i).skip) << i;
  const StepGuard::Verdict loss = guard.judge(5, 1);
  EXPECT_TRUE(loss.skip);
  EXPECT_GT(*loss.loss_z, 6);
  EXPECT_NE(loss.reason.find("loss 5 lies"), std::string::npos) << loss.reason;
  const StepGuard::Verdict norm = guard.judge(3, 4);
  EXPECT_TRUE(norm.skip);
  EXPECT_NE(norm.reason.find("gradient norm 4 lies"), std::string::npos) << norm.reason;
  EXPECT_EQ(guard.skipped(), 2);
}

TEST(StepGuard, ZeroThresholdsNeverSkip) {
  StepGuard guard({.window = 2});
  for (double x : {1.0, 2.0, 1e30, -5.0, 1e300}) EXPECT_FALSE(guard.judge(x, x).skip);
}

TEST(StepGuard, ResumesExactly) {
  const SkipConfig config{.loss_z = 2, .norm_z = 2, .window = 16};
  const RandomStream stream(2, "losses");
  for (uint64_t stop : {0, 5, 16, 41}) {
    StepGuard unbroken(config), before(config), after(config);
    for (uint64_t i = 0; i < 100; ++i) {
      const double loss = stream.normal(2 * i), norm = stream.normal(2 * i + 1);
      if (i == stop) after.restore(before.state());
      const auto want = unbroken.judge(loss, norm);
      const auto got = i < stop ? before.judge(loss, norm) : after.judge(loss, norm);
      ASSERT_EQ(want.skip, got.skip);
      ASSERT_EQ(want.loss_z, got.loss_z);
      ASSERT_EQ(want.norm_z, got.norm_z);
    }
    EXPECT_GT(unbroken.skipped(), 0);
    EXPECT_EQ(unbroken.skipped(), after.skipped());
  }
}

TEST(StepGuard, RefusesADamagedState) {
  StepGuard guard({});
  for (const std::vector<double>& bad :
       std::vector<std::vector<double>>{{}, {0}, {0, 3, 1, 1}, {-1, 0}, {0, NAN}}) {
    try {
      guard.restore(bad);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::data);
    }
  }
}

}  // namespace
}  // namespace shoestring
