#include "launcher/stop_check.h"

#include <gtest/gtest.h>

#include <csignal>
#include <mutex>
#include <thread>

#include "launcher/signals.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

// The process's signal is forgotten before and after each test.
class StopCheckTest : public testing::Test {
 protected:
  void SetUp() override { catch_stop_signals(); }
  void TearDown() override { catch_stop_signals(); }
};

// What `body` returned on each of three ranks.
std::vector<int64_t> on_ranks(const std::function<int64_t(Communicator&, StopCheck&)>& body) {
  std::vector<int64_t> results(3);
  run_ranks(3, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    StopCheck stop(world, stream);
    results[static_cast<size_t>(world.rank())] = body(world, stop);
  });
  return results;
}

TEST_F(StopCheckTest, AllRanksStopAtTheSamePlace) {
  const auto counts = on_ranks([](Communicator& world, StopCheck& stop) {
    int64_t calls = 1;
    for (; !stop.between(); ++calls) {
      if (world.rank() == 1 && calls == 5) std::raise(SIGTERM);
    }
    EXPECT_TRUE(stop.stopped());
    EXPECT_TRUE(stop.now());  // asks nobody any more
    return calls;
  });
  EXPECT_GE(counts[0], 5);
  EXPECT_EQ(counts[0], counts[1]);
  EXPECT_EQ(counts[0], counts[2]);
}

TEST_F(StopCheckTest, TheSlowestRankSaysHowOftenToAsk) {
  std::vector<int64_t> reductions(3);
  run_ranks(3, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const auto traffic = std::make_shared<Traffic>();
    const auto counted = counting(world, traffic);
    StopCheck check(*counted, stream);
    check.pace(world.rank() == 2 ? 0.024 : 0.001);
    EXPECT_FALSE(check.now());
    for (int i = 0; i < 40; ++i) EXPECT_FALSE(check.between());
    reductions[static_cast<size_t>(world.rank())] = traffic->count(Call::Op::all_reduce);
  });
  // Once at first and then after every tenth piece of 24 ms.
  EXPECT_EQ(reductions, (std::vector<int64_t>{5, 5, 5}));
}

TEST_F(StopCheckTest, FollowersGoOnWhenTheLeaderIsDone) {
  const auto stopped = on_ranks([](Communicator& world, StopCheck& stop) -> int64_t {
    if (world.rank() == 0) {
      EXPECT_FALSE(stop.lead());
      stop.lead_done();
    } else {
      stop.follow();
    }
    return stop.now();
  });
  EXPECT_EQ(stopped, (std::vector<int64_t>{0, 0, 0}));
}

TEST_F(StopCheckTest, ASignalEndsTheLeadersWork) {
  const auto stopped = on_ranks([](Communicator& world, StopCheck& stop) -> int64_t {
    if (world.rank() == 0) {
      std::raise(SIGINT);
      while (!stop.lead()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      stop.lead_done();  // nobody listens any more, and nobody is asked
    } else {
      stop.follow();
    }
    return stop.stopped();
  });
  EXPECT_EQ(stopped, (std::vector<int64_t>{1, 1, 1}));
}

}  // namespace
}  // namespace shoestring
