#include "core/fp8/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "core/check.h"

namespace shoestring {
namespace {

Fp8Recipe preset(const std::string& name) {
  PrecisionConfig c;
  c.recipe = name;
  return resolve(c);
}

TEST(Recipe, PresetsAreWhatTheySay) {
  const Fp8Recipe v3 = preset("deepseek_v3");
  EXPECT_EQ(v3.activation, (Fp8Encoding{Dtype::f8e4m3, {1, 128}, ScaleKind::plain}));
  EXPECT_EQ(v3.gradient, v3.activation);
  EXPECT_EQ(v3.weight, (Fp8Encoding{Dtype::f8e4m3, {128, 128}, ScaleKind::plain}));
  EXPECT_EQ(v3.attention_output.scales, ScaleKind::power_of_two);
  EXPECT_EQ(v3.attention_copy, Fp8Copy::e5m6);
  EXPECT_TRUE(v3.swiglu_inputs);
  EXPECT_EQ(v3.arithmetic.promotion, 128);
  const Fp8Recipe tensor = preset("per_tensor");
  EXPECT_TRUE(tensor.activation.tile.whole() && tensor.weight.tile.whole());
  EXPECT_EQ(tensor.gradient.format, Dtype::f8e5m2);
  const Fp8Recipe micro = preset("mxfp8");
  EXPECT_EQ(micro.weight, (Fp8Encoding{Dtype::f8e4m3, {1, 32}, ScaleKind::power_of_two}));
  EXPECT_EQ(preset("block_gradients").gradient.tile, (Fp8Tile{128, 128}));
  EXPECT_EQ(preset("block_gradients").activation, v3.activation);
}

TEST(Recipe, AKeyThatIsGivenReplacesThePresets) {
  PrecisionConfig c;
  c.recipe = "deepseek_v3";
  c.gradient_format = "e5m2";
  c.weight_tile = "tensor";
  c.accumulator = "hopper";
  c.accumulator_bits = 10;
  c.wgrad = false;
  c.last_layers_bf16 = 2;
  const Fp8Recipe r = resolve(c);
  EXPECT_EQ(r.gradient.format, Dtype::f8e5m2);
  EXPECT_TRUE(r.weight.tile.whole());
  EXPECT_EQ(r.arithmetic, (Fp8Arithmetic{Accumulator::hopper, 128, 10}));
  EXPECT_FALSE(r.wgrad);
  EXPECT_TRUE(r.dgrad);
  EXPECT_EQ(r.last_layers, 2);
  fill_in(c);
  EXPECT_EQ(*c.activation_tile, "1x128");
  EXPECT_EQ(*c.weight_tile, "tensor");
  EXPECT_EQ(*c.moments, "bf16");
}

// The report's recipe has bf16 moments, and so has its variant; the others are of other origin.
TEST(Recipe, PresetsNameTheMoments) {
  for (const char* name : {"deepseek_v3", "block_gradients", "per_tensor", "mxfp8"}) {
    PrecisionConfig c;
    c.recipe = name;
    fill_in(c);
    EXPECT_EQ(*c.moments, c.attention_output_copy == "e5m6" ? "bf16" : "f32") << name;
    c.moments = "f32";
    fill_in(c);
    EXPECT_EQ(*c.moments, "f32") << name;
  }
}

TEST(Recipe, WithoutOneNothingIsFilledIn) {
  PrecisionConfig c;
  fill_in(c);
  EXPECT_FALSE(c.on());
  EXPECT_FALSE(c.activation_tile.has_value());
}

TEST(Recipe, WithoutOneThereIsNothingToResolve) {
  try {
    resolve(PrecisionConfig());
    FAIL() << "resolved";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("precision.recipe = \"bf16\""), std::string::npos);
  }
}

// Only where operands have one scale for all does a sum go on until it is told to stop.
TEST(Recipe, PromotionDepthsAreThoseOfAllProducts) {
  const auto depths = [](PrecisionConfig c, int64_t promotion) {
    c.promotion = promotion;
    const std::vector<int64_t> list = promotion_depths(resolve(std::move(c)));
    return std::set<int64_t>(list.begin(), list.end());
  };
  using Set = std::set<int64_t>;
  PrecisionConfig c;
  for (const char* accumulator : {"exact", "hopper"}) {
    c = {};
    c.accumulator = accumulator;
    c.recipe = "deepseek_v3";
    for (int64_t promotion : {0, 128, 512}) EXPECT_EQ(depths(c, promotion), Set{128});
    EXPECT_EQ(depths(c, 32), Set{32});
    c.weight_tile = c.gradient_tile = "tensor";
    EXPECT_EQ(depths(c, 0), (Set{0, 128}));  // dgrad
    c.dgrad = false;
    EXPECT_EQ(depths(c, 0), Set{128});
    c = {};
    c.recipe = "per_tensor";
    c.accumulator = accumulator;
    for (int64_t promotion : {0, 128, 512}) EXPECT_EQ(depths(c, promotion), Set{promotion});
  }
  c = {};
  c.recipe = "per_tensor";
  for (int64_t promotion : {0, 128, 512}) EXPECT_EQ(depths(c, promotion), Set{128});
  c.recipe = "mxfp8";
  EXPECT_EQ(depths(c, 64), Set{64});  // powers of two are folded
  c.accumulator = "exact";
  EXPECT_EQ(depths(c, 64), Set{32});
}

TEST(Recipe, ComplainsOfWhatCannotBe) {
  auto complaints = [](const PrecisionConfig& c) {
    Complaints list;
    c.validate(list);
    return list.items().size();
  };
  PrecisionConfig c;
  EXPECT_EQ(complaints(c), 0u);
  c.watchdog.every = 10;
  EXPECT_EQ(complaints(c), 1u);
  c.recipe = "deepseek_v3";
  EXPECT_EQ(complaints(c), 0u);
  c.promotion = 100;
  c.copy = "e5m6";
  EXPECT_EQ(complaints(c), 2u);
  c = {};
  c.recipe = "mxfp8";
  c.fprop = c.dgrad = c.wgrad = false;
  EXPECT_EQ(complaints(c), 1u);
}

}  // namespace
}  // namespace shoestring
