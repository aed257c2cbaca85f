#include "parallel/comm/traced.h"

#include <gtest/gtest.h>

#include <thread>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

TEST(Traced, EachCallHasASpanWithItsTimes) {
  using Clock = std::chrono::steady_clock;
  std::vector<CommunicationSpan> spans;  // of rank 0
  Clock::time_point begin, end;
  run_ranks(2, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "comm");
    const auto listener = [&](const CommunicationSpan& s) {
      if (world.rank() == 0) spans.push_back(s);
    };
    const auto communicator = traced(world, listener);
    std::vector<double> x(10);
    if (world.rank() == 0) begin = Clock::now();
    // Rank 1 comes late, so that rank 0's call takes a while.
    if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    communicator->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    communicator->broadcast(buffer_of(std::span(x)), 0, stream);
    stream.synchronize();
    if (world.rank() == 0) end = Clock::now();
  });
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].op, Call::Op::all_reduce);
  EXPECT_EQ(spans[0].communicator, "world");
  EXPECT_EQ(spans[0].bytes, 80);
  EXPECT_EQ(spans[1].bytes, 80);
  EXPECT_GE(spans[0].begin, begin);
  EXPECT_GE(spans[0].end - spans[0].begin, std::chrono::milliseconds(20));
  EXPECT_GE(spans[1].begin, spans[0].end);
  EXPECT_LE(spans[1].end, end);
}

}  // namespace
}  // namespace shoestring
