#include "core/device.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <thread>

#include "core/check.h"

namespace shoestring {
namespace {

using namespace std::chrono_literals;

TEST(Stream, ImmediateWorkRunsBeforeReturn) {
  Device device;
  Stream stream = Stream::immediate(device);
  int x = 0;
  stream.run([&] { x = 1; });
  EXPECT_EQ(x, 1);
  EXPECT_TRUE(stream.record().happened());
}

TEST(Stream, WorkerRunsInOrderAndEventsMarkPoints) {
  Device device;
  Stream stream = Stream::worker(device, "test");
  std::atomic<bool> gate{false};
  std::vector<int> order;
  stream.run([&] {
    while (!gate) std::this_thread::sleep_for(1ms);
    order.push_back(1);
  });
  const Event first = stream.record();
  stream.run([&] { order.push_back(2); });
  EXPECT_FALSE(first.happened());
  gate = true;
  stream.synchronize();
  EXPECT_TRUE(first.happened());
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(Stream, OneStreamWaitsForAnother) {
  Device device;
  Stream a = Stream::worker(device, "a"), b = Stream::worker(device, "b");
  std::atomic<int> value{0};
  a.run([&] {
    std::this_thread::sleep_for(20ms);
    value = 5;
  });
  b.wait(a.record());
  int seen = 0;
  b.run([&] { seen = value; });
  b.synchronize();
  EXPECT_EQ(seen, 5);
}

TEST(Stream, ErrorsReachWhoeverWaitsAndLaterWorkIsSkipped) {
  Device device;
  Stream stream = Stream::worker(device, "test");
  bool ran = false;
  stream.run([] { fail("link down"); });
  try {
    stream.run([&] { ran = true; });
  } catch (const Error&) {
    // The failure was already known: that is also how it may surface.
  }
  const Event event = [&] { return stream.record(); }();
  EXPECT_THROW(event.wait(), Error);
  EXPECT_THROW(stream.synchronize(), Error);
  EXPECT_FALSE(ran);
}

// What it holds can tell those who wait for it.
TEST(Stream, SkippedWorkIsDestroyedInTheCatchOfItsError) {
  struct Guard {
    std::string& told;
    ~Guard() {
      if (!std::current_exception()) return;
      try {
        throw;
      } catch (const std::exception& error) {
        told = error.what();
      }
    }
  };
  Device device;
  Stream stream = Stream::worker(device, "test");
  std::string skipped, done;
  std::atomic<bool> go = false;
  stream.run([held = std::make_shared<Guard>(done)] {});
  stream.run([&go] {
    while (!go) std::this_thread::yield();
    fail("link down");
  });
  stream.run([held = std::make_shared<Guard>(skipped)] {});
  const Event event = stream.record();
  go = true;
  EXPECT_THROW(event.wait(), Error);
  EXPECT_EQ(skipped, "link down");
  EXPECT_EQ(done, "");
}

void set_seven(Stream&, int& x) { x = 7; }

TEST(On, CallsTheDevicesKernelAndNamesAMissingOne) {
  Device device;
  Stream stream = Stream::immediate(device);
  int x = 0;
  on<int&>(stream, "seven", set_seven, nullptr, x);
  EXPECT_EQ(x, 7);
  try {
    on<int&>(stream, "seven", static_cast<void (*)(Stream&, int&)>(nullptr), set_seven, x);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("[seven]"), std::string::npos);
  }
}

TEST(Device, CudaWithoutABuildSaysWhatToDo) {
  try {
    Device device(DeviceKind::cuda);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("preset 'cuda'"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
