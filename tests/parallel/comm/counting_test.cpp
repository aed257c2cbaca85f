#include "parallel/comm/counting.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

TEST(Counting, BytesByKindOfCallSplitsIncluded) {
  const auto traffic = std::make_shared<Traffic>();
  run_ranks(4, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const auto counted = counting(world, traffic);
    std::vector<float> x(400);
    counted->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    auto half = counted->split(world.rank() % 2, 0);
    half->broadcast(buffer_of(std::span(x)), 0, stream);
  });
  EXPECT_EQ(traffic->bytes(Call::Op::all_reduce), 4 * 2 * 300 * 4);
  EXPECT_EQ(traffic->bytes(Call::Op::broadcast), 2 * 400 * 4);  // two roots, one peer each
  EXPECT_EQ(traffic->count(Call::Op::broadcast), 4);
  EXPECT_EQ(traffic->bytes(Call::Op::exchange), 0);
  EXPECT_EQ(traffic->total_bytes(), 4 * 2 * 300 * 4 + 2 * 400 * 4);
  traffic->reset();
  EXPECT_EQ(traffic->total_bytes(), 0);
  EXPECT_EQ(traffic->count(Call::Op::all_reduce), 0);
}

TEST(Counting, OfSplitsAlone) {
  const auto traffic = std::make_shared<Traffic>();
  run_ranks(4, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const auto counted = counting_splits(world, traffic);
    std::vector<float> x(400);
    counted->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    auto half = counted->split(world.rank() % 2, 0);
    auto again = half->split(0, 0);
    again->broadcast(buffer_of(std::span(x)), 0, stream);
  });
  EXPECT_EQ(traffic->total_bytes(), 2 * 400 * 4);
  EXPECT_EQ(traffic->count(Call::Op::broadcast), 4);
}

}  // namespace
}  // namespace shoestring
