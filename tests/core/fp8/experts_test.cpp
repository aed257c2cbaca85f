#include "core/fp8/experts.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/check.h"
#include "core/fp8/packed_rows.h"
#include "core/text.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/ops/fp8_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// Three experts of [70, 140]: the matrices do not begin at borders of blocks.
const std::vector<int64_t> borders = {0, 130, 130, 190};
constexpr int64_t rows = 200, outputs = 70, inputs = 140;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.text() == b.text() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

Tensor copy_of(const Tensor& x) {
  Tensor y(x.device(), x.shape(), x.dtype());
  std::memcpy(y.raw(), x.raw(), x.bytes());
  return y;
}

class Fp8ExpertsTest : public ::testing::TestWithParam<const char*> {
 protected:
  static PrecisionConfig config(const char* recipe) {
    PrecisionConfig c;
    c.recipe = recipe;
    c.dispatch_scales = c.activation_scales;
    return c;
  }
};

// Each expert's results are those of a layer of its own, whatever the others have.
TEST_P(Fp8ExpertsTest, AreLayersOfTheirOwn) {
  PrecisionConfig recipe = config(GetParam());
  fill_in(recipe);
  recipe.dispatch_scales = recipe.activation_scales;
  Fp8Case c("layers.0.moe.experts.down.weight", {3 * outputs, inputs}, recipe);
  const Tensor x = spread_tensor(c.device, {rows, inputs}, Dtype::bf16, "x");
  const Tensor dy = spread_tensor(c.device, {rows, outputs}, Dtype::bf16, "dy");
  Fp8Experts experts(c.stream, c.layer(), borders);
  Fp8Kept kept;
  const Tensor y = experts.forward(x, c.weight(), &kept);
  Fp8Kept owed;
  const Tensor dx = experts.input_gradient(dy, c.weight(), owed);
  Tensor dw = Tensor::zeros(c.device, {3 * outputs, inputs}, Dtype::f32);
  experts.weight_gradient(owed, kept, dw);
  for (size_t e : {size_t{0}, size_t{2}}) {
    Fp8Case alone("layers.0.mlp.down.weight", {outputs, inputs}, recipe);
    const auto at = static_cast<int64_t>(e);
    const Tensor w = copy_of(c.weight().rows(at * outputs, (at + 1) * outputs));
    const Tensor xe = copy_of(x.rows(borders[e], borders[e + 1]));
    const Tensor dye = copy_of(dy.rows(borders[e], borders[e + 1]));
    Fp8Layer& layer = alone.layer();
    const Fp8Tensor x8 = quantise(alone.stream, xe, layer.input());
    EXPECT_TRUE(
        same_bits(y.rows(borders[e], borders[e + 1]), layer.forward(alone.stream, xe, x8, w)));
    Fp8Kept owed_alone;
    EXPECT_TRUE(same_bits(dx.rows(borders[e], borders[e + 1]),
                          layer.input_gradient(alone.stream, dye, w, owed_alone)));
    if (gradient_is_sent(c.layer())) {  // then the weight gradient reads what was sent
      const Fp8Tensor sent = quantise(alone.stream, dye, layer.gradient());
      const Fp8Tensor again = requantise(alone.stream, sent, layer.gradient().transposed());
      owed_alone = {.codes = again.codes, .scales = again.scales, .values = {}};
    }
    Tensor dwe = Tensor::zeros(alone.device, {outputs, inputs}, Dtype::f32);
    layer.weight_gradient(alone.stream, owed_alone, layer.keep(alone.stream, xe, x8), dwe);
    EXPECT_TRUE(same_bits(dw.rows(at * outputs, (at + 1) * outputs), dwe));
  }
  // The expert without tokens learns nothing, and rows that belong to nobody are zeros.
  for (int64_t i = outputs * inputs; i < 2 * outputs * inputs; ++i) {
    ASSERT_EQ(dw.data<float>()[i], 0);
  }
  for (int64_t i = 190 * outputs; i < rows * outputs; ++i) {
    ASSERT_EQ(value_at(y, i), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Fp8ExpertsTest,
                         ::testing::Values("deepseek_v3", "per_tensor", "mxfp8",
                                           "block_gradients"));

TEST(Fp8Experts, WhatIsSentHasPowersOfTwo) {
  Fp8Case up("layers.0.moe.experts.gate_up.weight", {6, 8});
  EXPECT_EQ(up.layer().input().scales, ScaleKind::power_of_two);
  EXPECT_EQ(up.layer().gradient().scales, ScaleKind::plain);
  Fp8Case down("layers.0.moe.experts.down.weight", {6, 8});
  EXPECT_EQ(down.layer().input().scales, ScaleKind::plain);
  EXPECT_EQ(down.layer().gradient().scales, ScaleKind::power_of_two);
}

struct Outcome {
  Tensor y, dx, dw;
};
Outcome run(Fp8Case& c, Fp8Experts experts, const Tensor& x, const Tensor& dy, Tensor dw = {}) {
  Fp8Kept kept, owed;
  Outcome o{.y = experts.forward(x, c.weight(), &kept), .dx = {}, .dw = {}};
  o.dx = experts.input_gradient(dy, c.weight(), owed);
  o.dw = dw ? dw : Tensor::zeros(c.device, c.weight().shape(), Dtype::f32);
  experts.weight_gradient(owed, kept, o.dw);
  return o;
}

// What was sent in FP8 is used as it came; the numbers are those of rows in bf16.
TEST_P(Fp8ExpertsTest, ReadPackedRowsAsTheyAre) {
  for (const char* scales : {"plain", "power_of_two"}) {
    PrecisionConfig recipe = config(GetParam());
    recipe.dispatch_scales = scales;
    for (const char* matrix : {"gate_up", "down"}) {
      Fp8Case c(cat("layers.0.moe.experts.", matrix, ".weight"), {3 * outputs, inputs}, recipe);
      Fp8Layer& layer = c.layer();
      const Tensor x = spread_tensor(c.device, {rows, inputs}, Dtype::bf16, "x");
      const Tensor dy = spread_tensor(c.device, {rows, outputs}, Dtype::bf16, "dy");
      const Outcome want = run(c, Fp8Experts(c.stream, layer, borders), x, dy);
      const Tensor x8 = packs_input(layer) ? pack_rows(c.stream, x, layer.input()) : x;
      const Tensor dy8 = packs_gradient(layer) ? pack_rows(c.stream, dy, layer.gradient()) : dy;
      const Outcome got = run(c, Fp8Experts(c.stream, layer, borders), x8, dy8);
      EXPECT_TRUE(same_bits(got.y, want.y) && same_bits(got.dx, want.dx) &&
                  same_bits(got.dw, want.dw))
          << matrix << " " << scales;
      // A probe wants the values, and changes no number.
      Fp8Probe probe;
      layer.set_probe(&probe);
      EXPECT_FALSE(packs_input(layer) || packs_gradient(layer));
      const Outcome probed = run(c, Fp8Experts(c.stream, layer, borders), x, dy);
      EXPECT_TRUE(same_bits(probed.dx, want.dx) && same_bits(probed.dw, want.dw));
      EXPECT_THROW(
          run(c, Fp8Experts(c.stream, layer, borders), pack_rows(c.stream, x, Fp8Encoding()), dy),
          Error);
    }
  }
}

// Rows of two sources behind each other are two calls, one source after the other.
TEST_P(Fp8ExpertsTest, TilesRestartAtEverySource) {
  for (const char* matrix : {"gate_up", "down"}) {
    Fp8Case c(cat("layers.0.moe.experts.", matrix, ".weight"), {3 * outputs, inputs},
              config(GetParam()));
    const Tensor x = spread_tensor(c.device, {rows, inputs}, Dtype::bf16, "x");
    const Tensor dy = spread_tensor(c.device, {rows, outputs}, Dtype::bf16, "dy");
    // By (expert, source): 60 + 70, none, 0 + 60.
    const Outcome got =
        run(c, Fp8Experts(c.stream, c.layer(), {0, 60, 130, 130, 130, 130, 190}, 2), x, dy);
    const std::vector<std::vector<std::pair<int64_t, int64_t>>> sources = {
        {{0, 60}, {130, 130}, {130, 130}}, {{60, 130}, {130, 130}, {130, 190}}};
    const Tensor dw = Tensor::zeros(c.device, c.weight().shape(), Dtype::f32);
    for (const auto& parts : sources) {
      std::vector<int64_t> at = {0};
      for (const auto& [begin, end] : parts) at.push_back(at.back() + end - begin);
      Tensor xs(c.device, {at.back(), inputs}, Dtype::bf16);
      Tensor dys(c.device, {at.back(), outputs}, Dtype::bf16);
      for (size_t e = 0; e < parts.size(); ++e) {
        const Tensor px = x.rows(parts[e].first, parts[e].second);
        const Tensor py = dy.rows(parts[e].first, parts[e].second);
        std::memcpy(xs.rows(at[e], at[e + 1]).raw(), px.raw(), px.bytes());
        std::memcpy(dys.rows(at[e], at[e + 1]).raw(), py.raw(), py.bytes());
      }
      const Outcome want = run(c, Fp8Experts(c.stream, c.layer(), at), xs, dys, dw);
      for (size_t e = 0; e < parts.size(); ++e) {
        EXPECT_TRUE(
            same_bits(got.y.rows(parts[e].first, parts[e].second), want.y.rows(at[e], at[e + 1])));
        EXPECT_TRUE(same_bits(got.dx.rows(parts[e].first, parts[e].second),
                              want.dx.rows(at[e], at[e + 1])));
      }
    }
    EXPECT_TRUE(same_bits(got.dw, dw)) << matrix;
  }
}

TEST(Fp8Experts, ProductsThatStayFullAndTheProbe) {
  PrecisionConfig full;
  full.recipe = "deepseek_v3";
  full.fprop = full.dgrad = full.wgrad = false;
  Fp8Case plain("layers.0.moe.experts.down.weight", {3 * outputs, inputs}, full);
  Fp8Case narrow("layers.0.moe.experts.down.weight", {3 * outputs, inputs});
  Fp8Probe probe;
  narrow.layer().set_probe(&probe);
  for (Fp8Case* c : {&plain, &narrow}) {
    const Tensor x = spread_tensor(c->device, {rows, inputs}, Dtype::bf16, "x");
    const Tensor dy = spread_tensor(c->device, {rows, outputs}, Dtype::bf16, "dy");
    Fp8Experts experts(c->stream, c->layer(), borders);
    Fp8Kept kept, owed;
    experts.forward(x, c->weight(), &kept);
    experts.input_gradient(dy, c->weight(), owed);
    EXPECT_EQ(owed.values.block(), dy.block());  // for the probe, or for bf16
    EXPECT_EQ(static_cast<bool>(owed.codes), c == &narrow);
    Tensor dw = Tensor::zeros(c->device, {3 * outputs, inputs}, Dtype::f32);
    experts.weight_gradient(owed, kept, dw);
    EXPECT_EQ(kept.values.block(), x.block());
    EXPECT_EQ(static_cast<bool>(kept.codes), c == &narrow);
  }
  ASSERT_EQ(probe.figures().size(), 3u);
  // Both operands of each product, tokens and all experts' matrices.
  const double x = 190 * inputs, dy = 190 * outputs, w = 3 * outputs * inputs;
  const std::map<LinearProduct, double> values = {{LinearProduct::fprop, x + w},
                                                  {LinearProduct::dgrad, dy + w},
                                                  {LinearProduct::wgrad, dy + x}};
  for (const auto& [key, figures] : probe.figures()) {
    EXPECT_EQ(figures.values, values.at(key.second)) << name_of(key.second);
    EXPECT_GT(figures.relative_error(), 0.01) << name_of(key.second);
    EXPECT_LT(figures.relative_error(), 0.09) << name_of(key.second);
  }
}

}  // namespace
}  // namespace shoestring
