#include "parallel/communicator.h"

#include <gtest/gtest.h>

#include <stdexcept>

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
  InProcessWorld world(2);
  const auto communicator = world.communicator(1);
  { AbortOnUnwind guard(*communicator); }
  EXPECT_EQ(world.first_aborted(), -1);
  try {
    AbortOnUnwind guard(*communicator);
    throw std::runtime_error("x");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(world.first_aborted(), 1);
}

TEST(Reduce, HasNames) {
  EXPECT_EQ(name_of(Reduce::sum), "sum");
  EXPECT_EQ(name_of(Reduce::max), "max");
  EXPECT_EQ(name_of(Reduce::min), "min");
}

}  // namespace
}  // namespace shoestring
