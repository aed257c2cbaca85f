#include "launcher/bench_peak_command.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/check.h"
#include "launcher/run_config.h"

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
    double best = 0;
    for (const Measurement& row : rows) {
      if (row.name.starts_with("product." + type + ".")) best = std::max(best, row.value);
    }
    EXPECT_EQ(peak.value, best);
    EXPECT_GT(value("product." + type + ".1024^3").value, 0);
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

TEST(BenchPeak, SizesAreTheConfigsModelAndMicroBatch) {
  RunConfig config;
  config.train.micro_batch = 3;
  config.train.sequence_length = 128;
  config.model.hidden = 96;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.head_dim = 16;
  config.model.ffn = 200;
  config.model.vocabulary = 70'000;
  const ProductSizes sizes = product_sizes(config, Dtype::f32);
  EXPECT_EQ(sizes.tokens, 384);
  EXPECT_EQ(sizes.width, 96);
  EXPECT_EQ(sizes.inner, 200);
  EXPECT_EQ(sizes.qkv_width, 16 * (4 + 2 + 2));
  EXPECT_EQ(sizes.output_width, 64);
  EXPECT_EQ(sizes.vocabulary, 70'000);
  EXPECT_EQ(sizes.head_tokens, 64);  // 32 MiB of f32 logits hold 119 rows: whole 64s
}

TEST(BenchPeak, MeasuresOneTypeOfAConfigsModel) {
  const auto rows = bench_peak(
      {.threads = 1,
       .rounds = 1,
       .largest = 1024,
       .dtype = "f32",
       .overrides = {"model.hidden=64", "model.heads=4", "model.kv_heads=2", "model.ffn=96",
                     "model.vocabulary=512", "train.micro_batch=1", "train.sequence_length=32"}});
  const auto of_type = [&](std::string_view type) {
    return std::count_if(rows.begin(), rows.end(), [&](const Measurement& row) {
      return row.name.starts_with(std::string("product.") + std::string(type));
    });
  };
  EXPECT_EQ(of_type("f32"), 16);
  EXPECT_EQ(of_type("bf16"), 0);
  const auto headless = bench_peak(
      {.threads = 1, .rounds = 1, .largest = 1024, .dtype = "f32", .overrides = {"model.ffn=96"}});
  for (const Measurement& row : headless) EXPECT_GT(row.value, 0) << row.name;
}

TEST(BenchPeak, RefusesSenselessOptions) {
  EXPECT_THROW(bench_peak({.rounds = 0}), Error);
  EXPECT_THROW(bench_peak({.threads = -1}), Error);
  EXPECT_THROW(bench_peak({.largest = 512}), Error);
  EXPECT_THROW(bench_peak({.dtype = "f64"}), Error);
  EXPECT_THROW(bench_peak({.config = "no such file"}), Error);
}

}  // namespace
}  // namespace shoestring
