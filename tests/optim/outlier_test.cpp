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
  for (double x : {1.0, 2.0, 1e9, 2.0}) {
    EXPECT_FALSE(detector.score(x));
    detector.take(x);
  }
  EXPECT_TRUE(detector.score(1.0));
}

TEST(Outlier, ScoresAgainstTheWindow) {
  OutlierDetector detector(4);
  for (double x : {1.0, 3.0, 1.0, 3.0}) detector.take(x);
  EXPECT_DOUBLE_EQ(*detector.score(7), 5);  // mean 2, deviation 1
  EXPECT_DOUBLE_EQ(*detector.score(7), 5);  // scoring takes nothing in
  detector.take(7);
  // Now 3, 1, 3, 7: mean 3.5, deviation sqrt(4.75).
  EXPECT_DOUBLE_EQ(*detector.score(3.5), 0);
}

TEST(Outlier, EqualValuesScoreZeroAndInfinityStaysOut) {
  OutlierDetector detector(3);
  for (int i = 0; i < 3; ++i) detector.take(2);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(*detector.score(nan), std::numeric_limits<double>::infinity());
  detector.take(nan);
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

// Losses about 3 and norms about 1, step after step.
class CalmRun {
 public:
  explicit CalmRun(StepGuard& guard) : guard_(guard) {}
  StepGuard::Verdict step(double lift = 0) {
    const uint64_t i = 2 * step_++;
    return guard_.judge(3 + lift + 0.1 * stream_.normal(i), 1 + 0.1 * stream_.normal(i + 1));
  }

 private:
  StepGuard& guard_;
  RandomStream stream_ = RandomStream(3, "calm");
  uint64_t step_ = 0;
};

TEST(StepGuard, SkippedStepsStayOutOfTheWindow) {
  StepGuard guard({.loss_z = 6, .norm_z = 6, .window = 32, .limit = 3});
  CalmRun run(guard);
  for (int i = 0; i < 40; ++i) ASSERT_FALSE(run.step().skip);
  std::vector<double> before = guard.state();
  const StepGuard::Verdict first = guard.judge(1000, 1);
  ASSERT_TRUE(first.skip);
  // Skipped count and row aside, nothing has changed: the next spike scores as high as the first.
  std::vector<double> after = guard.state();
  EXPECT_EQ(after.front(), before.front() + 1);
  EXPECT_EQ(after.back(), before.back() + 1);
  after.front() = before.front();
  after.back() = before.back();
  EXPECT_EQ(after, before);
  const StepGuard::Verdict second = guard.judge(1000, 1);
  EXPECT_TRUE(second.skip);
  EXPECT_EQ(second.loss_z, first.loss_z);
  EXPECT_FALSE(run.step().skip);        // and the run itself goes on
  EXPECT_TRUE(guard.judge(4, 1).skip);  // ten deviations, invisible beside a spike of 1000
}

TEST(StepGuard, ALastingChangeOfLevelIsTakenAfterTheLimit) {
  StepGuard guard({.loss_z = 6, .norm_z = 0, .window = 128, .limit = 5});
  CalmRun run(guard);
  for (int i = 0; i < 200; ++i) ASSERT_FALSE(run.step().skip);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(run.step(50).skip) << i;
  for (int i = 0; i < 300; ++i) {
    const StepGuard::Verdict verdict = run.step(50);
    ASSERT_FALSE(verdict.skip) << i;
    EXPECT_EQ(verdict.reason, "");
  }
  EXPECT_EQ(guard.skipped(), 5);
  // The new level has its own spikes, with a row of their own.
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(run.step(100).skip) << i;
  EXPECT_FALSE(run.step(50).skip);
}

TEST(StepGuard, NeverTakesWhatIsNotFinite) {
  StepGuard guard({.loss_z = 6, .norm_z = 6, .window = 8, .limit = 2});
  CalmRun run(guard);
  for (int i = 0; i < 8; ++i) run.step();
  const std::vector<double> before = guard.state();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(guard.judge(NAN, 1).skip);
  EXPECT_EQ(guard.skipped(), 10);
  const std::vector<double> after = guard.state();
  EXPECT_TRUE(std::equal(after.begin() + 1, after.end() - 1, before.begin() + 1));
}

TEST(StepGuard, ZeroThresholdsNeverSkip) {
  StepGuard guard({.window = 2});
  for (double x : {1.0, 2.0, 1e30, -5.0, 1e300}) EXPECT_FALSE(guard.judge(x, x).skip);
}

TEST(StepGuard, ResumesExactly) {
  const SkipConfig config{.loss_z = 1, .norm_z = 1, .window = 16, .limit = 2};
  const RandomStream stream(2, "losses");
  for (uint64_t stop = 0; stop < 60; ++stop) {  // also inside a row of skips
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
    EXPECT_EQ(unbroken.state(), after.state());
    EXPECT_GT(unbroken.skipped(), 0);
    EXPECT_EQ(unbroken.skipped(), after.skipped());
  }
}

TEST(StepGuard, ReadsAStateWithoutARow) {
  StepGuard guard({.loss_z = 2, .norm_z = 2, .window = 4});
  guard.restore(std::vector<double>{7, 2, 1, 2, 3, 4});
  EXPECT_EQ(guard.skipped(), 7);
  EXPECT_EQ(guard.state(), (std::vector<double>{7, 2, 1, 2, 3, 4, 0}));
}

TEST(StepGuard, RefusesADamagedState) {
  StepGuard guard({});
  for (const std::vector<double>& bad : std::vector<std::vector<double>>{
           {}, {0}, {0, 3, 1, 1}, {-1, 0}, {0, NAN}, {0, 1, 5, 5, -1}, {0, 0.5, 1}, {0, 1, 5}}) {
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
