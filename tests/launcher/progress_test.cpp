#include "launcher/progress.h"

#include <gtest/gtest.h>

#include <cmath>

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

TEST(Progress, TerminalsGetOneLiveLineOthersPlainLines) {
  ::testing::internal::CaptureStderr();
  {
    ProgressLine live(true);
    live.update("a");
    live.update("b");
    live.line("stays");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "\r\x1b[Ka\r\x1b[Kb\r\x1b[Kstays\n");
  ::testing::internal::CaptureStderr();
  {
    ProgressLine plain(false);
    plain.update("a");
    plain.line("stays");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "stays\n");
}

TEST(Progress, ALiveLineFitsTheTerminal) {
  const std::string text = "step 9/10  loss 2.5  left 3.0 s  MFU 60.1%  0.1 of 0.2 USD";
  EXPECT_EQ(fitted(text, 80), text);
  EXPECT_EQ(fitted(text, text.size()), text);
  EXPECT_EQ(fitted(text, text.size() - 1), "step 9/10  loss 2.5  left 3.0 s  MFU 60.1%");
  EXPECT_EQ(fitted(text, 30), "step 9/10  loss 2.5");
  EXPECT_EQ(fitted(text, 5), "step ");
  EXPECT_EQ(fitted("ab\xc3\xa4z", 3), "ab");  // never half a character
  ::testing::internal::CaptureStderr();
  ProgressLine(true, 21).update(text);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "\r\x1b[Kstep 9/10  loss 2.5\n");
}

TEST(Progress, DigitsAfterThePoint) {
  EXPECT_EQ(text_of_fixed(3.14159, 2), "3.14");
  EXPECT_EQ(text_of_fixed(-0.5, 0), "-0");
  EXPECT_EQ(text_of_fixed(1e308, 1).size(), 311u);
}

}  // namespace
}  // namespace shoestring
