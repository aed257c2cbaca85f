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
              StopDeadline deadline(0.2, "runs/slow");
              deadline.begun();
              std::raise(SIGTERM);
              sleep_seconds(60);
            }),
            75);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(StopDeadline, CountsFromTheSignalOn) {
  EXPECT_EQ(code_of([] {
              StopDeadline deadline(0.05, "runs/unasked");
              deadline.begun();
              sleep_seconds(0.3);
            }),
            0);
}

TEST(StopDeadline, LeavesARunAloneThatIsDone) {
  EXPECT_EQ(code_of([] {
              {
                StopDeadline deadline(0.1, "runs/saved");
                deadline.begun();
                std::raise(SIGINT);
              }
              sleep_seconds(0.3);
            }),
            0);
}

TEST(StopDeadline, ZeroIsNoLimit) {
  EXPECT_EQ(code_of([] {
              StopDeadline deadline(0, "runs/unlimited");
              deadline.begun();
              std::raise(SIGTERM);
              sleep_seconds(0.2);
            }),
            0);
}

// Who is killed within that time, because another rank has failed, says nothing.
TEST(StopDeadline, WaitsBeforeTheFirstStepWhereItIsToldTo) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of([] {
              const StopDeadline deadline(300, "runs/new", 0.5);
              std::raise(SIGTERM);
              sleep_seconds(60);
            }),
            75);
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_GT(took, std::chrono::milliseconds(500));
  EXPECT_LT(took, std::chrono::seconds(20));
}

// A run that takes minutes to set up has nothing to save: no deadline counts.
TEST(StopDeadline, BeforeTheFirstStepASignalEndsTheProcessAtOnce) {
  for (const double seconds : {0.0, 300.0}) {
    testing::internal::CaptureStderr();
    const auto start = std::chrono::steady_clock::now();
    const pid_t child = fork();
    if (child == 0) {
      catch_stop_signals();
      const StopDeadline deadline(seconds, "runs/new");
      std::raise(SIGTERM);
      sleep_seconds(60);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 75);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
    EXPECT_NE(said.find("before it took a step"), std::string::npos) << said;
    EXPECT_EQ(said.find("lost"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace shoestring
