#include "parallel/comm/in_process.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The error of a run in which a rank misbehaves.
RankError failure_of(int ranks, const std::function<void(Communicator&)>& body,
                     InProcessOptions options = {.deadline = std::chrono::seconds(20)}) {
  try {
    run_ranks(ranks, body, options);
  } catch (const RankError& error) {
    return error;
  }
  throw std::runtime_error("the run did not fail");
}

struct Inline {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
};

void reduce_floats(Communicator& world, size_t count, Stream& stream) {
  const auto x = std::make_shared<std::vector<float>>(count, 1.0f);
  world.all_reduce(buffer_of(std::span(*x)), Reduce::sum, stream);
  stream.run([x] {});
}

// The number of the only rank tells a user nothing: the error is that of the body.
TEST(InProcess, TheErrorOfTheOnlyRankIsHandedOnAsItIs) {
  try {
    run_ranks(1, [](Communicator&) { fail_data("the file is gone"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the file is gone");
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_NE(error.where().find("in_process_test.cpp"), std::string::npos) << error.where();
  }
  EXPECT_THROW(run_ranks(1, [](Communicator&) { throw std::bad_alloc(); }), std::bad_alloc);
}

TEST(InProcess, ARankThatThrowsEndsTheOthersAndIsNamed) {
  const auto begin = Clock::now();
  std::atomic<int> told{0};
  const RankError error = failure_of(4, [&](Communicator& world) {
    Inline here;
    if (world.rank() == 2) fail_data("shard 7 is missing");
    try {
      reduce_floats(world, 1000, here.stream);
    } catch (const PeerFailure& e) {
      if (std::string(e.what()).find("rank 2 failed: shard 7 is missing") != std::string::npos) {
        ++told;
      }
      throw;
    }
  });
  EXPECT_EQ(error.rank(), 2);
  EXPECT_EQ(error.code(), ExitCode::data);
  EXPECT_STREQ(error.what(), "rank 2: shard 7 is missing");
  EXPECT_EQ(told, 3);
  EXPECT_LT(seconds_since(begin), 5);
}

TEST(InProcess, ARankThatThrowsWhileItsWorkerWaitsEndsAtOnce) {
  const auto begin = Clock::now();
  const RankError error = failure_of(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    std::vector<float> x(100);
    Stream comm = Stream::worker(device, "comm");
    AbortOnUnwind guard(world);
    if (world.rank() != 1) {
      world.all_reduce(buffer_of(std::span(x)), Reduce::sum, comm);
      if (world.rank() == 0) fail("the loss is not a number");
      comm.synchronize();
    }
  });
  // Rank 1 left early, rank 0 failed: either may be noticed first.
  EXPECT_TRUE(error.rank() == 0 || error.rank() == 2) << error.what();
  EXPECT_LT(seconds_since(begin), 5);
}

// Both ranks wait for the other, and neither for the stream that failed.
TEST(InProcess, ACallBehindWorkThatThrewEndsItsPeersAtOnce) {
  const auto begin = Clock::now();
  const RankError error = failure_of(2, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    const auto there = world.split(0, world.rank()), back = world.split(0, world.rank());
    Stream sends = Stream::worker(device, "there"), receives = Stream::worker(device, "back");
    AbortOnUnwind guard(world);
    std::atomic<bool> go = world.rank() != 0;
    sends.run([&go] {
      while (!go) std::this_thread::yield();
    });
    if (world.rank() == 0) sends.run([] { fail("link down"); });
    reduce_floats(*there, 1, sends);
    go = true;
    if (world.rank() == 1) sends.synchronize();
    reduce_floats(*back, 1, receives);
    receives.synchronize();
  });
  EXPECT_EQ(error.rank(), 0);
  EXPECT_NE(std::string(error.what()).find("link down"), std::string::npos) << error.what();
  EXPECT_LT(seconds_since(begin), 5);
}

TEST(InProcess, ARankThatLeavesIsNotWaitedFor) {
  const auto begin = Clock::now();
  const RankError error = failure_of(3, [](Communicator& world) {
    Inline here;
    if (world.rank() != 1) reduce_floats(world, 10, here.stream);
  });
  EXPECT_NE(std::string(error.what()).find("rank 1 ended while rank"), std::string::npos)
      << error.what();
  EXPECT_LT(seconds_since(begin), 5);
}

TEST(InProcess, ARankThatStallsIsNamedAtTheDeadline) {
  std::atomic<bool> others_ended{false};
  std::atomic<double> waited{0};
  const auto begin = Clock::now();
  std::atomic<int> ended{0};
  const RankError error =
      failure_of(3,
                 [&](Communicator& world) {
                   Inline here;
                   if (world.rank() == 1) {  // a stall that ends once the others have given up
                     while (!others_ended && seconds_since(begin) < 30) {
                       std::this_thread::sleep_for(std::chrono::milliseconds(5));
                     }
                     return;
                   }
                   try {
                     reduce_floats(world, 10, here.stream);
                   } catch (...) {
                     waited = seconds_since(begin);
                     if (++ended == 2) others_ended = true;
                     throw;
                   }
                 },
                 {.deadline = std::chrono::milliseconds(300)});
  EXPECT_NE(std::string(error.what()).find("waited 300 ms for rank 1 in all_reduce #0 of 'world'"),
            std::string::npos)
      << error.what();
  EXPECT_GE(waited, 0.3);
  EXPECT_LT(waited, 5);
}

TEST(InProcess, DifferentSizesAreAnError) {
  const RankError error = failure_of(2, [](Communicator& world) {
    Inline here;
    reduce_floats(world, world.rank() == 0 ? 100 : 50, here.stream);
  });
  EXPECT_NE(std::string(error.what()).find("bytes but rank"), std::string::npos) << error.what();
}

TEST(InProcess, AbortWakesSplitsToo) {
  const auto begin = Clock::now();
  const RankError error = failure_of(4, [](Communicator& world) {
    Inline here;
    auto half = world.split(world.rank() / 2, 0);
    if (world.rank() == 0) fail("no more");
    if (world.rank() == 1) reduce_floats(*half, 10, here.stream);  // waits for rank 0
    if (world.rank() >= 2) {
      for (int i = 0; i < 1000000; ++i) reduce_floats(*half, 10, here.stream);
    }
  });
  EXPECT_EQ(error.rank(), 0) << error.what();
  EXPECT_LT(seconds_since(begin), 10);
}

TEST(InProcess, TwoCallsAtOnceOnOneCommunicatorAreAnError) {
  const RankError error = failure_of(2, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream a = Stream::worker(device, "a");
    AbortOnUnwind guard(world);
    Inline here;
    std::vector<float> x(10);
    if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    world.all_reduce(buffer_of(std::span(x)), Reduce::sum, a);
    if (world.rank() == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      reduce_floats(world, 10, here.stream);
    }
    a.synchronize();
  });
  EXPECT_EQ(error.rank(), 0);
  EXPECT_NE(std::string(error.what()).find("two calls run at once"), std::string::npos);
}

TEST(InProcess, RanksOfAFailureAreThoseOfTheWorld) {
  const RankError error = failure_of(4, [](Communicator& world) {
    Inline here;
    auto upper = world.split(world.rank() < 2 ? -1 : 0, 0);
    if (world.rank() == 2) reduce_floats(*upper, 10, here.stream);
  });
  EXPECT_NE(std::string(error.what()).find("rank 3 ended while rank 2 waits"), std::string::npos)
      << error.what();
}

TEST(InProcess, AWorldHasAtLeastOneRank) {
  EXPECT_THROW(InProcessWorld(0), Error);
  InProcessWorld world(2);
  EXPECT_THROW(world.communicator(2), Error);
}

TEST(InProcess, StandardExceptionsAreNamedToo) {
  const RankError error =
      failure_of(2, [](Communicator& world) { world.rank() == 1 ? throw std::bad_alloc() : 0; });
  EXPECT_EQ(error.rank(), 1);
  EXPECT_EQ(error.code(), ExitCode::fault);
}

// In a process of its own, in which no thread can start any more once the first one runs.
TEST(InProcess, ThreadsThatCannotBeStartedAreAnErrorNotTheEnd) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      run_ranks(500, [](Communicator& world) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, size_t{1} << 46);
        pthread_setattr_default_np(&attributes);
        Inline here;
        barrier(world, here.stream);
      });
    } catch (const Error& error) {
      const bool said =
          std::string(error.what()).find("of 500 threads could be started") != std::string::npos;
      _exit(said ? 7 : 2);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// Channels are made when two ranks speak, not for every pair of them.
TEST(InProcess, ManyRanksCostLittle) {
  const auto begin = Clock::now();
  InProcessWorld world(4096);
  const auto first = world.communicator(0), last = world.communicator(4095);
  EXPECT_EQ(last->rank(), 4095);
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  EXPECT_LT(usage.ru_maxrss, 2 << 20);  // KiB
  EXPECT_LT(seconds_since(begin), 5);
}

}  // namespace
}  // namespace shoestring
