#include "launcher/short_waits.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "core/environment.h"

namespace shoestring {
namespace {

// What wait_shortly() does in a child: 10 when it returned, 20 when it started a program again.
int outcome_in_child(const char* variable) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::unsetenv("OMP_WAIT_POLICY");
    ::unsetenv("GOMP_SPINCOUNT");
    if (variable != nullptr) ::setenv(variable, "7", 1);
    std::string name = "short_waits_test", list = "--gtest_filter=ShortWaits.IsStartedAgain";
    char* arguments[] = {name.data(), list.data(), nullptr};
    wait_shortly(arguments);
    ::_exit(10);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

// Run by itself it only passes; started by the other test it says what it was given.
TEST(ShortWaits, IsStartedAgain) {
  if (environment_variable("SHORT_WAITS_CHILD")) {
    ::_exit(environment_variable("GOMP_SPINCOUNT") == "1000" ? 20 : 30);
  }
}

TEST(ShortWaits, StartsAgainUnlessTheUserChose) {
  ::setenv("SHORT_WAITS_CHILD", "1", 1);
  EXPECT_EQ(outcome_in_child(nullptr), 20);
  EXPECT_EQ(outcome_in_child("GOMP_SPINCOUNT"), 10);
  EXPECT_EQ(outcome_in_child("OMP_WAIT_POLICY"), 10);
  ::unsetenv("SHORT_WAITS_CHILD");
}

}  // namespace
}  // namespace shoestring
