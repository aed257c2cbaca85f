#include "launcher/eval_progress.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace shoestring {
namespace {

const std::vector<TextInput> two_files = {{.path = "a.txt", .bytes = 2048},
                                          {.path = "b.gz", .bytes = 2048}};

// The lines of an evaluation that tells each part.
std::string said(const std::vector<TextInput>& inputs,
                 const std::function<void(EvalProgress&)>& work) {
  testing::internal::CaptureStderr();
  ProgressLine line(stderr, {.terminal = false, .interval = 0});
  EvalProgress progress(inputs, line);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  work(progress);
  return testing::internal::GetCapturedStderr();
}

TEST(EvalProgress, TellsRateAndTimeLeft) {
  const std::string text = said(two_files, [](EvalProgress& p) {
    p.piece(1024);
    p.done(0.5, 100);
    p.done(1, 200);
    p.piece(1024);
    p.done(1, 400);
    p.end_of(two_files[0], 400);
    p.piece(4096);  // four bytes of text in one on disk
    p.read(1024);
    p.piece(2048);
    p.done(1, 600);
  });
  for (const char* part :
       {"100 tokens  ", "512 B of 4.00 KiB", "200 tokens  ", "1.00 KiB of 4", "400 tokens  ",
        "2.00 KiB of 4", "1 k tokens  ", "3.50 KiB of 4.00 KiB", " tokens/s  left 0."}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in:\n" << text;
  }
}

TEST(EvalProgress, OfStandardInputTheLengthIsNotKnown) {
  const std::string text = said({{.path = "-"}}, [](EvalProgress& p) {
    p.piece(1000);
    p.done(1, 100);
  });
  EXPECT_NE(text.find("100 tokens  "), std::string::npos) << text;
  EXPECT_EQ(text.find("left"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
