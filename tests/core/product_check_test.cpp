#include "core/product_check.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(ProductCheck, ExactModeHoldsOnThisProcessor) {
  for (int threads : {1, 2, 3}) {
    Device device(DeviceKind::cpu, 0, threads);
    EXPECT_TRUE(products_are_row_independent(device, true)) << threads << " threads";
  }
}

// The fast path may or may not hold; what it says must not depend on when or where it is asked.
TEST(ProductCheck, TheFastPathsAnswerIsStable) {
  Device one(DeviceKind::cpu, 0, 1), three(DeviceKind::cpu, 0, 3);
  const bool first = products_are_row_independent(one, false);
  EXPECT_EQ(products_are_row_independent(one, false), first);
  EXPECT_EQ(products_are_row_independent(three, false), first);
}

}  // namespace
}  // namespace shoestring
