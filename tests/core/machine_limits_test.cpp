#include "core/machine_limits.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace shoestring {
namespace {

TEST(MachineLimits, CasesCoverTheThreeForms) {
  const auto cubes = cube_products(4096);
  ASSERT_EQ(cubes.size(), 3u);
  EXPECT_EQ(cubes[2].name, "4096^3");
  const auto cases = training_products({});
  ASSERT_EQ(cases.size(), 15u);
  const auto find = [&](std::string_view name) {
    return *std::find_if(cases.begin(), cases.end(), [&](const auto& c) { return c.name == name; });
  };
  const ProductCase forward = find("gate_up.forward"), weight = find("gate_up.grad_weight");
  EXPECT_EQ(forward.rows, 4096);
  EXPECT_EQ(forward.columns, 2816);
  EXPECT_EQ(forward.inner, 512);
  EXPECT_TRUE(forward.transpose_b);
  EXPECT_EQ(weight.rows, 2816);
  EXPECT_EQ(weight.inner, 4096);
  EXPECT_TRUE(weight.transpose_a && weight.accumulate);
}

TEST(MachineLimits, RatesAreNamedAndPositive) {
  Device device(DeviceKind::cpu, 0, 1);
  const ProductCase small[] = {
      {.name = "a", .rows = 64, .columns = 64, .inner = 64},
      {.name = "b",
       .rows = 48,
       .columns = 40,
       .inner = 96,
       .transpose_a = true,
       .accumulate = true},
      {.name = "c", .rows = 48, .columns = 40, .inner = 96, .transpose_b = true}};
  const Dtype dtypes[] = {Dtype::f32, Dtype::bf16};
  const auto rates = measure_products(device, small, dtypes, 2);
  ASSERT_EQ(rates.size(), 6u);
  for (size_t i = 0; i < rates.size(); ++i) {
    EXPECT_EQ(rates[i].name, small[i % 3].name);
    EXPECT_EQ(rates[i].dtype, dtypes[i / 3]);
    EXPECT_GT(rates[i].flops, 1e6);
  }
}

TEST(MachineLimits, BandwidthIsThatOfAMemory) {
  Device device;
  const MemoryBandwidth bandwidth = measured_bandwidth(device);
  for (double rate : {bandwidth.copy, bandwidth.triad}) {
    EXPECT_GT(rate, 1e7);
    EXPECT_LT(rate, 1e13);
  }
}

}  // namespace
}  // namespace shoestring
