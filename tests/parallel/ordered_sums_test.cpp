#include "parallel/ordered_sums.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

double loss_of(int64_t g) { return g % 2 == 0 ? 1e17 : 3.0 + static_cast<double>(g); }

TEST(OrderedSums, MicroBatchesComeInGlobalOrder) {
  for (int ranks : {1, 2, 3, 4}) {
    for (int64_t micro_batches : {0, 1, 2, 3, 7, 8}) {
      run_ranks(ranks, [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::worker(device, "comm");
        MicroBatchRows own{.width = 2};
        for (int64_t g = world.rank(); g < micro_batches; g += ranks) {
          own.add(g, {loss_of(g), static_cast<double>(g)});
        }
        const MicroBatchRows all = gather_rows(world, stream, own);
        check(static_cast<int64_t>(all.micro.size()) == micro_batches, "a row a micro-batch");
        double sum = 0;
        for (int64_t g = 0; g < micro_batches; ++g) {
          check(all.row(static_cast<size_t>(g))[0] == loss_of(g), "a loss in its place");
          check(all.row(static_cast<size_t>(g))[1] == static_cast<double>(g), "an index");
          sum += loss_of(g);
        }
        const auto sums = sum_rows(world, stream, own);
        check(sums.size() == 2 && sums[0] == sum, "the sum in global order");
      });
    }
  }
}

// Parts of one micro-batch, and ranks that have none.
TEST(OrderedSums, PartsOfAMicroBatchComeByRank) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "comm");
    MicroBatchRows own{.width = 1};
    if (world.rank() != 1) {
      for (const int64_t g : {5, 2}) own.add(g, {static_cast<double>(10 * g + world.rank())});
    }
    const MicroBatchRows all = gather_rows(world, stream, own);
    check(all.micro == std::vector<int64_t>({2, 2, 5, 5}), "ascending");
    check(all.figures == std::vector<double>({20, 22, 50, 52}), "by rank");
    own.width = world.rank() == 0 ? 2 : 1;
    if (world.rank() == 0) own.append({1, 2});
    EXPECT_THROW(gather_rows(world, stream, own), Error);
  });
}

TEST(OrderedSums, AFlagOfOneRankIsKnownToAll) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "comm");
    check(!any_rank(world, stream, false), "no rank");
    check(any_rank(world, stream, world.rank() == 2), "one rank");
  });
}

}  // namespace
}  // namespace shoestring
