#include "core/peak.h"

#include <gtest/gtest.h>

#include <chrono>

namespace shoestring {
namespace {

TEST(Peak, IsPlausibleAndQuick) {
  Device device(DeviceKind::cpu, 0, 1);
  const auto start = std::chrono::steady_clock::now();
  const double flops = measured_peak_flops(device, Dtype::f32);
  EXPECT_GT(flops, 1e8);   // no processor of this century is slower
  EXPECT_LT(flops, 1e13);  // nor is one core faster
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 30);
  EXPECT_EQ(device.ledger().current_total(), 0);
}

}  // namespace
}  // namespace shoestring
