#include "launcher/parity_memory.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

MemoryFigures figures_of(MemoryKind kind, int64_t peak, const MemoryBand& band) {
  MemoryFigures figures = {};
  figures[static_cast<size_t>(kind)] = {.peak = peak, .forecast = 1000, .rank = 3, .band = band};
  return figures;
}

TEST(ParityMemory, WhatIsExactMayNotBeOffByAByte) {
  const RunConfig config;
  const MemoryBand exact = band_of(MemoryKind::moments, config);
  EXPECT_TRUE(misses_of_memory(figures_of(MemoryKind::moments, 1000, exact)).empty());
  for (const int64_t peak : {999, 1001}) {
    const auto misses = misses_of_memory(figures_of(MemoryKind::moments, peak, exact));
    ASSERT_EQ(misses.size(), 1u) << peak;
    EXPECT_TRUE(misses[0].starts_with("moments: the peak of rank 3 is")) << misses[0];
  }
}

TEST(ParityMemory, BandsHaveTwoEnds) {
  const MemoryBand band{.least = 0.5, .most = 1.5, .slack = 0};
  for (const int64_t peak : {500, 1000, 1500}) {
    EXPECT_TRUE(misses_of_memory(figures_of(MemoryKind::activations, peak, band)).empty()) << peak;
  }
  for (const int64_t peak : {499, 1501}) {
    EXPECT_EQ(misses_of_memory(figures_of(MemoryKind::activations, peak, band)).size(), 1u) << peak;
  }
}

TEST(ParityMemory, ExpertsWidenTheBands) {
  RunConfig config;
  const double plain = band_of(MemoryKind::activations, config).most;
  config.mesh.etp = 2;
  EXPECT_GT(band_of(MemoryKind::activations, config).most, plain);
  EXPECT_FALSE(band_of(MemoryKind::other, config).bounded());
  config.mesh.etp = 1;
  config.precision.recipe = "deepseek_v3";
  EXPECT_EQ(band_of(MemoryKind::activations, config).most, plain);
  config.model.moe.experts = 4;
  EXPECT_GT(band_of(MemoryKind::activations, config).most, plain);
}

}  // namespace
}  // namespace shoestring
