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
        std::vector<double> own;
        for (int64_t g = world.rank(); g < micro_batches; g += ranks) {
          own.push_back(loss_of(g));
          own.push_back(static_cast<double>(g));
        }
        const auto all = gather_micro_batches(world, stream, own, micro_batches, 2);
        check(static_cast<int64_t>(all.size()) == 2 * micro_batches, "two figures a micro-batch");
        double sum = 0;
        for (int64_t g = 0; g < micro_batches; ++g) {
          check(all[static_cast<size_t>(2 * g)] == loss_of(g), "a loss in its place");
          check(all[static_cast<size_t>(2 * g + 1)] == static_cast<double>(g), "an index");
          sum += loss_of(g);
        }
        const auto sums = sum_micro_batches(world, stream, own, micro_batches, 2);
        check(sums.size() == 2 && sums[0] == sum, "the sum in global order");
      });
    }
  }
}

TEST(OrderedSums, AFlagOfOneRankIsKnownToAll) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "comm");
    check(!any_rank(world, stream, false), "no rank");
    check(any_rank(world, stream, world.rank() == 2), "one rank");
  });
}

TEST(OrderedSums, TermsComeInTheOrderOfTheirRuns) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "comm");
    const std::vector<TermRun> runs{{2, 3}, {0, 1}, {2, 0}, {1, 2}, {0, 4}, {2, 1}};
    std::vector<double> own, wanted;
    double next = 0;
    for (const TermRun& run : runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        wanted.push_back(next);
        if (run.rank == world.rank()) own.push_back(next);
        next += 1.5;
      }
    }
    check(gather_terms(world, stream, own, runs) == wanted, "terms in order");
    own.push_back(0);  // one too many
    EXPECT_THROW(gather_terms(world, stream, own, runs), Error);
  });
}

}  // namespace
}  // namespace shoestring
