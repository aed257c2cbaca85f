#include "core/parallel_for.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
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

// What a caller's thread does alone: everything up to one range.
TEST(ParallelFor, SmallWorkStaysOnOneThread) {
  EXPECT_EQ(rows_a_range(16384), 1);
  EXPECT_EQ(rows_a_range(100000), 1);
  EXPECT_EQ(rows_a_range(32), 512);
  EXPECT_EQ(rows_a_range(32, 4096), 128);
  EXPECT_EQ(rows_a_range(0), 16384);
  Device device(DeviceKind::cpu, 0, 4);
  auto ranges = [&](int64_t rows) {
    std::atomic<int> count{0};
    parallel_for(device, rows, rows_a_range(32), [&](int64_t, int64_t) { ++count; });
    return count.load();
  };
  EXPECT_EQ(ranges(512), 1);
  EXPECT_EQ(ranges(513), 2);
  EXPECT_EQ(ranges(1 << 20), 4);
}

TEST(ParallelFor, WorkPaysForItsThreads) {
  Device device(DeviceKind::cpu, 0, 4);
  EXPECT_EQ(threads_for(device, 0, 100), 1);
  EXPECT_EQ(threads_for(device, 99, 100), 1);
  EXPECT_EQ(threads_for(device, 250, 100), 3);
  EXPECT_EQ(threads_for(device, int64_t{1} << 60, 100), 4);
  const auto caller = std::this_thread::get_id();
  std::vector<int> seen(100, 0);
  parallel_for_dynamic(device, 100, 1, [&](int64_t i) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    ++seen[static_cast<size_t>(i)];
  });
  EXPECT_EQ(seen, std::vector<int>(100, 1));
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
