#include "parallel/communicator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

TEST(EvenCounts, CutsInBlocks) {
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(even_counts(10, 3), (Counts{4, 4, 2}));
  EXPECT_EQ(even_counts(10, 1), (Counts{10}));
  EXPECT_EQ(even_counts(2, 4), (Counts{1, 1, 0, 0}));
  EXPECT_EQ(even_counts(0, 2), (Counts{0, 0}));
  EXPECT_EQ(even_counts(100, 3, 64), (Counts{64, 36, 0}));
  EXPECT_EQ(even_counts(5, 4), (Counts{2, 2, 1, 0}));
  EXPECT_THROW(even_counts(-1, 2), Error);
  EXPECT_THROW(even_counts(1, 0), Error);
}

TEST(Views, KnowTheirBytesAndParts) {
  std::vector<double> x{1, 2, 3, 4};
  const Buffer all = buffer_of(std::span(x));
  EXPECT_EQ(all.bytes(), 32u);
  EXPECT_EQ(all.dtype, Dtype::f64);
  const View tail = View(all).part(3, 1);
  EXPECT_EQ(*reinterpret_cast<const double*>(tail.data), 4);
  const std::vector<BFloat16> narrow(3);
  EXPECT_EQ(view_of(std::span(narrow)).bytes(), 6u);
}

TEST(AbortOnUnwind, AbortsOnlyWhenAnExceptionPasses) {
  std::atomic<bool> passed = false;  // by rank 0, the first barrier: an abort would end that, too
  run_ranks(2, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    { AbortOnUnwind guard(world); }
    barrier(world, stream);
    if (world.rank() == 0) passed = true;
    if (world.rank() == 1) {
      while (!passed) std::this_thread::yield();
      try {
        AbortOnUnwind guard(world);
        throw std::runtime_error("x");
      } catch (const std::runtime_error&) {
      }
      return;
    }
    try {
      barrier(world, stream);
      fail("the peer passed a barrier that rank 1 never reached");
    } catch (const PeerFailure& error) {
      const std::string text = error.what();
      check(text.find("rank 1 failed: it left by an exception") != std::string::npos, text);
    }
  });
}

TEST(Reduce, HasNames) {
  EXPECT_EQ(name_of(Reduce::sum), "sum");
  EXPECT_EQ(name_of(Reduce::max), "max");
  EXPECT_EQ(name_of(Reduce::min), "min");
}

}  // namespace
}  // namespace shoestring
