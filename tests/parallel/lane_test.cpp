#include "parallel/lane.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/check.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

Instruction part(Do what, int number, bool travels = false) {
  return {.what = what, .travels = travels, .part = static_cast<int16_t>(number)};
}

// Every part notes itself; without a fixed order the list would be another one now and then.
TEST(Lane, PassesComputeInTheOrderOfTheProgram) {
  Device device(DeviceKind::cpu, 0, 1);
  Lane forward(device, "forward"), backward(device, "backward");
  for (int round = 0; round < 50; ++round) {
    std::vector<int> seen;  // not guarded: one writes at a time
    const auto pass = [&](Do what, int base) {
      return [&seen, what, base](PartGate& gate) {
        for (int k = 0; k < 4; ++k) {
          gate.enter(what, k);
          if (k == 1) {
            gate.travel();
            gate.leave();
          }
          seen.push_back(base + k);
        }
        gate.give({});
      };
    };
    forward.start(pass(Do::F, 0));
    backward.start(pass(Do::I, 10));
    EXPECT_TRUE(forward.busy());
    for (const int k : {10, 0, 1, 11, 2, 12, 13, 3}) {
      (k < 10 ? forward : backward).go(part(k < 10 ? Do::F : Do::I, k % 10, k % 10 == 1));
    }
    forward.finish();
    backward.finish();
    EXPECT_FALSE(forward.busy());
    // What follows rows that travelled comes when the program is back at the pass.
    EXPECT_EQ(seen, (std::vector<int>{10, 0, 1, 2, 11, 12, 13, 3}));
    EXPECT_TRUE(forward.take().has_value());
    EXPECT_FALSE(forward.take().has_value());
  }
}

TEST(Lane, RowsTravelWhileTheOtherPassComputes) {
  Device device(DeviceKind::cpu, 0, 1);
  Lane forward(device, "forward");
  std::atomic<bool> travelling{false}, arrive{false};
  forward.start([&](PartGate& gate) {
    gate.enter(Do::F, 0);
    gate.travel();
    travelling = true;
    while (!arrive) std::this_thread::yield();
    gate.leave();
    gate.give({});
  });
  forward.go(part(Do::F, 0, true));  // is back although nothing has arrived
  while (!travelling) std::this_thread::yield();
  EXPECT_FALSE(forward.take().has_value());
  EXPECT_EQ(forward.travel_seconds(), 0);
  std::thread sender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    arrive = true;
  });
  double told = 0;
  const WaitListener waits = [&](std::string_view what, auto begin, auto end) {
    EXPECT_EQ(what, "rows on their way");
    told += std::chrono::duration<double>(end - begin).count();
  };
  listen_to_waits(&waits);
  forward.finish();
  listen_to_waits(nullptr);
  sender.join();
  EXPECT_GE(told, forward.travel_seconds());
  EXPECT_TRUE(forward.take().has_value());
  EXPECT_GT(forward.travel_seconds(), 0.01);
}

template <class F>
std::string message(F&& body) {
  try {
    body();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

TEST(Lane, ErrorsOfAPassComeToItsCaller) {
  Device device(DeviceKind::cpu, 0, 1);
  Lane lane(device, "forward");
  const auto fails = [](PartGate& gate) {
    gate.enter(Do::F, 0);
    gate.enter(Do::F, 1);
    fail_data("the disk is full");
  };
  lane.start(fails);
  lane.go(part(Do::F, 0));
  EXPECT_NE(message([&] { lane.go(part(Do::F, 1)); }).find("the disk is full"), std::string::npos);
  EXPECT_FALSE(lane.busy());
  lane.start([](PartGate& gate) { gate.enter(Do::F, 0); });  // and is of use again
  lane.go(part(Do::F, 0));
  lane.finish();
}

TEST(Lane, ErrorsWhileRowsTravelComeWithTheNextPart) {
  Device device(DeviceKind::cpu, 0, 1);
  Lane lane(device, "forward");
  for (const bool last : {false, true}) {
    std::atomic<bool> breaks{false};
    lane.start([&](PartGate& gate) {
      gate.enter(Do::F, 0);
      gate.travel();
      while (!breaks) std::this_thread::yield();
      fail_data("the link is down");
    });
    lane.go(part(Do::F, 0, true));
    breaks = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // before the next part, or while
    const std::string text = message([&] { last ? lane.finish() : lane.go(part(Do::F, 1)); });
    EXPECT_NE(text.find("the link is down"), std::string::npos) << text;
    EXPECT_FALSE(lane.busy());
  }
}

TEST(Lane, APassAndAProgramThatDisagreeFail) {
  Device device(DeviceKind::cpu, 0, 1);
  const auto two_parts = [](PartGate& gate) {
    gate.enter(Do::F, 0);
    gate.enter(Do::F, 1);
  };
  {
    Lane lane(device, "forward");
    lane.start(two_parts);
    EXPECT_NE(
        message([&] { lane.go(part(Do::F, 1)); }).find("at its part F.0 but the program at F.1"),
        std::string::npos);
  }
  {
    Lane lane(device, "forward");
    lane.start(two_parts);
    lane.go(part(Do::F, 0));
    EXPECT_NE(
        message([&] { lane.finish(); }).find("at its part F.1 but the program has no more parts"),
        std::string::npos);
    lane.abandon();
  }
  {
    Lane lane(device, "forward");
    lane.start(two_parts);
    lane.go(part(Do::F, 0));
    lane.go(part(Do::F, 1));
    EXPECT_NE(message([&] { lane.go(part(Do::F, 2)); }).find("of a pass that is over"),
              std::string::npos);
  }
  Lane lane(device, "forward");
  lane.start(two_parts);
  lane.go(part(Do::F, 0));  // its end finds the pass at a border
}

}  // namespace
}  // namespace shoestring
