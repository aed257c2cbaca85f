#include "parallel/comm/rank_failure.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace shoestring {
namespace {

using std::chrono::milliseconds;

template <class F>
std::string text_of(F&& failing) {
  try {
    failing();
  } catch (const Error& error) {
    return text_of_error(error);
  }
  return "(no error)";
}

TEST(RankFailure, OnlyFaultsOfTheProgramNameTheirPlace) {
  EXPECT_EQ(text_of([] { fail_data("no file"); }), "no file");
  EXPECT_EQ(text_of([] { fail_usage("no key"); }), "no key");
  EXPECT_EQ(text_of([] { fail("no network", no_place); }), "no network");
  const std::string fault = text_of([] { fail("no reason"); });
  EXPECT_EQ(fault.find("no reason (tests/parallel/comm/rank_failure_test.cpp:"), 0u) << fault;
}

TEST(RankFailure, ARankIsNamedOnce) {
  EXPECT_EQ(with_rank(2, "no file"), "rank 2: no file");
  EXPECT_EQ(with_rank(2, "rank_00001.h5 is cut off"), "rank 2: rank_00001.h5 is cut off");
  EXPECT_EQ(with_rank(2, "ranks differ, rank by rank "), "rank 2: ranks differ, rank by rank ");
  EXPECT_EQ(with_rank(2, "not finite: rank 2, step 3"), "not finite: rank 2, step 3");
  EXPECT_EQ(with_rank(2, "each rank waits, rank 0 failed"), "each rank waits, rank 0 failed");
}

TEST(RankFailure, RanksSpeakInTheirOrder) {
  const milliseconds lead(1000);
  EXPECT_EQ(turn_of_rank(0, lead), milliseconds(0));
  EXPECT_EQ(turn_of_rank(1, lead), milliseconds(1050));
  EXPECT_EQ(turn_of_rank(7, lead), milliseconds(1350));
  EXPECT_EQ(turn_of_rank(5000, lead), milliseconds(2000));
}

// Also in a run, which takes SIGTERM for a wish to stop.
TEST(RankFailure, WhoWaitsForItsTurnIsEndedWithoutAWord) {
  const auto begin = std::chrono::steady_clock::now();
  const pid_t waiting = fork();
  if (waiting == 0) {
    std::signal(SIGTERM, [](int) {});
    await_turn(std::chrono::seconds(60));
    _exit(3);
  }
  int status = 0;
  while (waitpid(waiting, &status, WNOHANG) == 0) {  // the first signals may come before the wait
    kill(waiting, SIGTERM);
    usleep(10000);
  }
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

}  // namespace
}  // namespace shoestring
