#include "core/parallel_for.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/check.h"
#include "core/device.h"

namespace shoestring {
namespace {

TEST(ParallelFor, CoversEveryIndexOnceInRangesOfWholeGrains) {
  for (int threads : {1, 2, 3, 5}) {
    Device device(DeviceKind::cpu, 0, threads);
    for (int64_t n : {0, 1, 7, 64, 1000}) {
      for (int64_t grain : {1, 8, 100}) {
        std::vector<int> seen(static_cast<size_t>(n), 0);
        parallel_for(device, n, grain, [&](int64_t begin, int64_t end) {
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(n), 1));
        std::vector<int> dynamic(static_cast<size_t>(n), 0);
        parallel_for_dynamic(device, n, [&](int64_t i) { ++dynamic[static_cast<size_t>(i)]; });
        EXPECT_EQ(dynamic, std::vector<int>(static_cast<size_t>(n), 1));
      }
    }
  }
}

TEST(ParallelFor, ExceptionsReachTheCaller) {
  Device device(DeviceKind::cpu, 0, 3);
  EXPECT_THROW(parallel_for(device, 100, 1,
                            [](int64_t begin, int64_t) {
                              if (begin == 0) fail("first range");
                            }),
               Error);
  EXPECT_THROW(parallel_for_dynamic(device, 100,
                                    [](int64_t i) {
                                      if (i == 57) fail("one item");
                                    }),
               Error);
}

}  // namespace
}  // namespace shoestring
