#include "launcher/bench_peak_command.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(BenchPeak, ComparesTheModelsProductsWithTheBestOne) {
  const auto rows = bench_peak({.threads = 1, .rounds = 1, .largest = 1024});
  const auto value = [&](std::string_view name) {
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.name == name; });
    return found == rows.end() ? Measurement{} : *found;
  };
  for (std::string type : {"f32", "bf16"}) {
    const Measurement peak = value("peak." + type);
    EXPECT_EQ(peak.value, value("product." + type + ".1024^3").value);
    EXPECT_FALSE(peak.goal);
    const Measurement product = value("product." + type + ".down.grad_weight");
    EXPECT_GT(product.value, 0);
    EXPECT_EQ(product.unit, "GFLOP/s");
    ASSERT_TRUE(product.goal);
    EXPECT_DOUBLE_EQ(*product.goal, 0.93 * peak.value);
  }
  EXPECT_GT(value("memory.copy").value, 0);
  EXPECT_GT(value("memory.triad").value, 0);
}

TEST(BenchPeak, RefusesSenselessOptions) {
  EXPECT_THROW(bench_peak({.rounds = 0}), Error);
  EXPECT_THROW(bench_peak({.threads = -1}), Error);
  EXPECT_THROW(bench_peak({.largest = 512}), Error);
}

}  // namespace
}  // namespace shoestring
