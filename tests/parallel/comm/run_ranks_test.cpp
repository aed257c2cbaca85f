#include "parallel/comm/run_ranks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

using std::chrono::milliseconds;

struct Inline {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
};

std::string message_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const RankError& error) {
    return error.what();
  }
  return "no error";
}

// A thread that never waits for anybody cannot be told that another one failed.
TEST(RunRanks, AThreadThatDoesNotComeBackIsGivenUp) {
  std::atomic<bool> released = false;
  std::string told;
  const std::string thrown = message_of([&] {
    run_ranks(3,
              [&](Communicator& world) {
                enter_phase("update", 4);
                if (world.rank() == 1) fail_data("the shard is missing");
                while (world.rank() == 2 && !released) std::this_thread::sleep_for(milliseconds(2));
              },
              {}, {.time = milliseconds(100), .over = [&](const RankError& error) {
                     told = error.what();
                     EXPECT_EQ(error.rank(), 1);
                     EXPECT_EQ(error.code(), ExitCode::data);
                     released = true;
                   }});
  });
  EXPECT_TRUE(told.starts_with("rank 1: the shard is missing; rank 1 on ")) << told;
  EXPECT_NE(told.find("was in step 4, update"), std::string::npos) << told;
  EXPECT_NE(told.find("rank 2: busy in update"), std::string::npos) << told;
  EXPECT_TRUE(thrown.starts_with("rank 1: the shard is missing")) << thrown;
}

TEST(RunRanks, WhoAloneIsLeftHasTheDeadlineToo) {
  std::atomic<bool> released = false;
  std::string told;
  run_ranks(3,
            [&](Communicator& world) {
              enter_phase("checkpoint", 4);
              while (world.rank() == 2 && !released) std::this_thread::sleep_for(milliseconds(2));
            },
            {.deadline = milliseconds(200), .name = "world"},
            {.time = milliseconds(50), .over = [&](const RankError& error) {
               told = error.what();
               EXPECT_EQ(error.rank(), 2);
               released = true;
             }});
  EXPECT_TRUE(told.starts_with("rank 2 does not come to its end: others are there since 200 ms"))
      << told;
  EXPECT_NE(told.find("was in step 4, checkpoint"), std::string::npos) << told;
  EXPECT_NE(told.find("ranks 0 and 1: at its end"), std::string::npos) << told;
}

TEST(RunRanks, NobodyIsGivenUpWhereNobodyFails) {
  run_ranks(3,
            [](Communicator& world) {
              Inline here;
              if (world.rank() == 1) std::this_thread::sleep_for(milliseconds(300));
              barrier(world, here.stream);
            },
            {}, {.time = milliseconds(1), .over = [](const RankError& error) {
                   FAIL() << error.what();
                 }});
}

// The last to wait is waited for by all: the cause is the rank that it waits for.
TEST(RunRanks, TheRankAtTheEndOfTheWaitsIsToBlame) {
  std::atomic<bool> released = false;
  std::string told;
  const std::string thrown = message_of([&] {
    run_ranks(4,
              [&](Communicator& world) {
                Inline here;
                const auto pair = world.split(world.rank() / 2, 0);
                enter_phase("update", 2);
                float x = 0;
                const auto meet = [&](Communicator& c) {
                  try {
                    c.all_reduce(buffer_of(std::span(&x, 1)), Reduce::sum, here.stream);
                  } catch (const Error&) {
                    if (!released) throw;  // the hanging one has come back
                  }
                };
                if (world.rank() == 3) {
                  while (!released) std::this_thread::sleep_for(milliseconds(2));
                }
                if (world.rank() == 2) std::this_thread::sleep_for(milliseconds(150));
                if (world.rank() >= 2) meet(*pair);
                meet(world);
              },
              {.deadline = milliseconds(500), .name = "world"},
              {.time = milliseconds(50), .over = [&](const RankError& error) {
                 told = error.what();
                 EXPECT_EQ(error.rank(), 3);
                 released = true;
               }});
  });
  EXPECT_TRUE(thrown.starts_with("rank 3 does not answer")) << thrown;
  EXPECT_TRUE(told.starts_with("rank 3 does not answer: rank ")) << told;
  EXPECT_NE(told.find("rank 2: waiting for rank 3 in all_reduce #0 of 'world/1'"),
            std::string::npos)
      << told;
}

}  // namespace
}  // namespace shoestring
