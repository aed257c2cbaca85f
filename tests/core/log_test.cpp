#include "core/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

namespace shoestring {
namespace {

template <class F>
std::string written(F&& f) {
  testing::internal::CaptureStderr();
  f();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, LinesSayTheirLevel) {
  EXPECT_EQ(written([] { log_info("a"); }), "a\n");
  EXPECT_EQ(written([] { log_warning("b"); }), "warning: b\n");
  EXPECT_EQ(written([] { log_error("c"); }), "error: c\n");
}

// Messages quote names and bytes of damaged files.
TEST(Log, NothingReachesTheTerminalThatItObeys) {
  EXPECT_EQ(written([] { log_error("tensor \x1b]0;x\x07 is \xff"); }),
            "error: tensor \\x1b]0;x\\x07 is \\xff\n");
}

TEST(Log, RankIsTheThreads) {
  EXPECT_EQ(written([] {
              std::thread other([] {
                set_log_rank(3);
                log_warning("mine");
              });
              other.join();
              log_warning("nobody's");
            }),
            "[rank 3] warning: mine\nwarning: nobody's\n");
  EXPECT_EQ(log_rank(), -1);
}

TEST(Log, LinesOfThreadsDoNotMix) {
  const std::string line(500, 'x');
  std::string text = written([&] {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) log_info(line);
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  std::string wanted;
  for (int i = 0; i < 200; ++i) wanted += line + "\n";
  EXPECT_EQ(text, wanted);
}

}  // namespace
}  // namespace shoestring
