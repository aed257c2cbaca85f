#include "parallel/comm/by_stream.h"

#include <gtest/gtest.h>

#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

TEST(ByStream, CallsOfOneStreamTakeTheOtherCommunicator) {
  const auto usual_traffic = std::make_shared<Traffic>(),
             other_traffic = std::make_shared<Traffic>();
  run_ranks(2, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream one = Stream::immediate(device), two = Stream::immediate(device);
    const auto second = world.split(0, world.rank());
    const auto usual = counting(world, usual_traffic), other = counting(*second, other_traffic);
    const Stream* certain = nullptr;
    const auto both = by_stream(*usual, *other, &certain);
    EXPECT_EQ(both->rank(), world.rank());
    EXPECT_EQ(both->size(), 2);
    std::vector<float> x(8, 1), y(8);
    const std::vector<int64_t> counts = {4, 4};
    both->all_to_all(view_of(std::span(x)), counts, buffer_of(std::span(y)), counts, one);
    certain = &two;
    both->all_reduce(buffer_of(std::span(x)), Reduce::sum, two);
    EXPECT_EQ(x[0], 2);
    both->broadcast(buffer_of(std::span(x)), 1, two);
    const auto part = both->split(0, -world.rank());
    EXPECT_EQ(part->rank(), 1 - world.rank());
    part->all_gather(view_of(std::span(x)).part(0, 4), counts, buffer_of(std::span(y)), two);
    EXPECT_EQ(world.split(-1, 0), nullptr);
    certain = nullptr;
    both->all_to_all(view_of(std::span(x)), counts, buffer_of(std::span(y)), counts, two);
  });
  EXPECT_EQ(usual_traffic->count(Call::Op::all_to_all), 4);
  EXPECT_EQ(usual_traffic->count(Call::Op::all_reduce), 0);
  EXPECT_EQ(usual_traffic->count(Call::Op::all_gather), 0);
  EXPECT_EQ(other_traffic->count(Call::Op::all_to_all), 0);
  EXPECT_EQ(other_traffic->count(Call::Op::all_reduce), 2);
  EXPECT_EQ(other_traffic->count(Call::Op::broadcast), 2);
  EXPECT_EQ(other_traffic->count(Call::Op::all_gather), 2);
}

}  // namespace
}  // namespace shoestring
