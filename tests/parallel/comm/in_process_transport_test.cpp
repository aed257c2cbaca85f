#include "parallel/comm/in_process_transport.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

using std::chrono::milliseconds;

TEST(InProcessTransport, ACallTellsItsRankWhatItLacks) {
  const auto shared = std::make_shared<InProcessWorld::Shared>(
      3, InProcessOptions{.deadline = milliseconds(400), .name = "world"});
  for (Whereabouts& place : shared->places) place.begin(0, 1, "node1");
  const auto transport = in_process_transport(shared, 0);
  std::array<std::byte, 8> in{}, out{};
  std::thread waiting([&] {
    const WhereaboutsScope scope(shared->places.data());
    const Incoming receives[] = {{1, in.data(), 4}, {2, in.data() + 4, 4}};
    try {
      transport->transfer({}, receives, {"exchange", 5});
      ADD_FAILURE() << "nobody sent";
    } catch (const NoAnswer& error) {
      EXPECT_EQ(error.cause(), 2);
      EXPECT_STREQ(error.what(),
                   "rank 2 does not answer: rank 0 waited 400 ms for rank 2 in exchange #5 of "
                   "'world'");
    }
  });
  const auto other = in_process_transport(shared, 1);
  const Outgoing sends[] = {{0, out.data(), 4}};
  other->transfer(sends, {}, {"exchange", 5});
  while (shared->places[0].waits().empty() || lacking(*shared->places[0].waits()[0]).empty()) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  const auto* const call = shared->places[0].waits()[0];
  EXPECT_EQ(call_text(*call), "exchange #5 of 'world' (8 bytes)");
  while (lacking(*call) != std::vector{2}) std::this_thread::sleep_for(milliseconds(1));
  waiting.join();
  EXPECT_EQ(shared->aborted_by, 0);
  EXPECT_EQ(shared->abort_cause, 2);
}

}  // namespace
}  // namespace shoestring
