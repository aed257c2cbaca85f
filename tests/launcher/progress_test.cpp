#include "launcher/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/text.h"

namespace shoestring {
namespace {

TEST(Progress, Texts) {
  EXPECT_EQ(text_of_seconds(12.34), "12.3 s");
  EXPECT_EQ(text_of_seconds(250), "4 min 10 s");
  EXPECT_EQ(text_of_seconds(3720), "1 h 02 min");
  EXPECT_EQ(text_of_seconds(3 * 86400 + 7200), "3 d 2 h");
  EXPECT_EQ(text_of_seconds(NAN), "unknown");
  EXPECT_EQ(text_of_count(812), "812");
  EXPECT_EQ(text_of_count(3.69e6), "3.69 M");
  EXPECT_EQ(text_of_bytes(100), "100 B");
  EXPECT_EQ(text_of_bytes(1.25 * 1024 * 1024 * 1024), "1.25 GiB");
}

// What was written to standard output and standard error.
struct Written {
  std::string out, err;
};
Written written(const std::function<void()>& work) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  work();
  std::string err = testing::internal::GetCapturedStderr();
  return {testing::internal::GetCapturedStdout(), std::move(err)};
}

TEST(Progress, TerminalsGetOneLiveLineOthersPlainLines) {
  const Written live = written([] {
    ProgressLine line(stderr, {.terminal = true});
    line.update("a");
    line.update("b");
    line.line("stays");
  });
  EXPECT_EQ(live.err, "\r\x1b[Ka\r\x1b[Kb\r\x1b[Kstays\n");
  EXPECT_EQ(live.out, "");
  const Written plain = written([] {
    ProgressLine line(stderr, {.terminal = false});
    line.update("a");
    line.line("stays");
  });
  EXPECT_EQ(plain.err, "stays\n");
}

// A user who writes standard output to a file has the lines there and sees the live one.
TEST(Progress, LinesMayGoToStandardOutput) {
  const Written both = written([] {
    ProgressLine line(stdout, {.terminal = true});
    line.update("a");
    line.line("stays");
    line.update("b");
  });
  EXPECT_EQ(both.out, "stays\n");
  EXPECT_EQ(both.err, "\r\x1b[Ka\r\x1b[K\r\x1b[Kb\n");
}

TEST(Progress, TicksAreSeldom) {
  const auto ticks = [](bool terminal, double interval) {
    return written([&] {
      ProgressLine line(stderr, {.terminal = terminal, .interval = interval});
      for (int i = 1; i <= 2; ++i) line.tick([&] { return cat("part ", i); });
    });
  };
  EXPECT_EQ(ticks(false, 0).err, "part 1\npart 2\n");
  EXPECT_EQ(ticks(true, 0).err, "\r\x1b[Kpart 1\r\x1b[Kpart 2\n");
  EXPECT_EQ(ticks(false, 1000).err, "");
}

TEST(Progress, ALiveLineFitsTheTerminal) {
  const std::string text = "step 9/10  loss 2.5  left 3.0 s  MFU 60.1%  0.1 of 0.2 USD";
  EXPECT_EQ(fitted(text, 80), text);
  EXPECT_EQ(fitted(text, text.size()), text);
  EXPECT_EQ(fitted(text, text.size() - 1), "step 9/10  loss 2.5  left 3.0 s  MFU 60.1%");
  EXPECT_EQ(fitted(text, 30), "step 9/10  loss 2.5");
  EXPECT_EQ(fitted(text, 5), "step ");
  EXPECT_EQ(fitted("ab\xc3\xa4z", 3), "ab");  // never half a character
  const Written narrow =
      written([&] { ProgressLine(stderr, {.terminal = true, .columns = 21}).update(text); });
  EXPECT_EQ(narrow.err, "\r\x1b[Kstep 9/10  loss 2.5\n");
}

TEST(Progress, DigitsAfterThePoint) {
  EXPECT_EQ(text_of_fixed(3.14159, 2), "3.14");
  EXPECT_EQ(text_of_fixed(-0.5, 0), "-0");
  EXPECT_EQ(text_of_fixed(1e308, 1).size(), 311u);
}

}  // namespace
}  // namespace shoestring
