#include "launcher/stop_deadline.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "launcher/signals.h"

namespace shoestring {
namespace {

// In a process of its own, which the deadline may end. Returns its exit code.
int code_of(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    catch_stop_signals();
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

TEST(StopDeadline, EndsAProcessThatDoesNotComeToAnEnd) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of([] {
              const StopDeadline deadline(0.2, "runs/slow");
              std::raise(SIGTERM);
              sleep_seconds(60);
            }),
            75);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(StopDeadline, CountsFromTheSignalOn) {
  EXPECT_EQ(code_of([] {
              const StopDeadline deadline(0.05, "runs/unasked");
              sleep_seconds(0.3);
            }),
            0);
}

TEST(StopDeadline, LeavesARunAloneThatIsDone) {
  EXPECT_EQ(code_of([] {
              {
                const StopDeadline deadline(0.1, "runs/saved");
                std::raise(SIGINT);
              }
              sleep_seconds(0.3);
            }),
            0);
}

TEST(StopDeadline, ZeroIsNoLimit) {
  EXPECT_EQ(code_of([] {
              const StopDeadline deadline(0, "runs/unlimited");
              std::raise(SIGTERM);
              sleep_seconds(0.2);
            }),
            0);
}

}  // namespace
}  // namespace shoestring
