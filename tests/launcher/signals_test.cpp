#include "launcher/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace shoestring {
namespace {

// In a process of its own: handlers are process-wide.
int status_of(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(Signals, TheFirstOneIsRemembered) {
  const int status = status_of([] {
    catch_stop_signals();
    if (stop_signal() != 0) _exit(1);
    std::raise(SIGTERM);
    _exit(stop_signal() == SIGTERM ? 7 : 2);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Signals, TheSecondOneEndsTheProcess) {
  const int status = status_of([] {
    catch_stop_signals();
    std::raise(SIGINT);
    std::raise(SIGINT);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGINT);
}

}  // namespace
}  // namespace shoestring
