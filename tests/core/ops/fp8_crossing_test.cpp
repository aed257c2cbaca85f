#include "core/ops/fp8_crossing.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/ops/fp8_linear.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/halving_travel.h"
#include "tests/core/ops/fp8_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

void expect_same(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(static_cast<bool>(got), static_cast<bool>(want));
  if (!want) return;
  ASSERT_EQ(got.shape(), want.shape());
  EXPECT_EQ(0, std::memcmp(got.raw(), want.raw(), want.bytes()));
}

Tensor crossed(Fp8Case& c, RowTravel* edge, bool back, const Tensor& x) {
  if (edge == nullptr) return x;
  const int64_t rows = back ? edge->rows_before(x.rows()) : edge->rows_beyond(x.rows());
  Tensor y(c.device, {rows, x.columns()}, x.dtype());
  back ? edge->cross_back(c.stream, x, y, {}) : edge->cross(c.stream, x, y, {});
  return y;
}

// Row by row or all at once: the same bits as the layer's own products between the edges.
void expect_the_layers_products(const PrecisionConfig& config, const Edges& edges) {
  Fp8Case c("layers.0.mlp.down.weight", {140, 300}, config);
  Fp8Layer& layer = c.layer();
  const Tensor x = spread_tensor(c.device, {40, 300}, Dtype::bf16, "x");
  const auto codes = [&](const Tensor& t) {
    return layer.wants_codes() ? quantise(c.stream, t, layer.input()) : Fp8Tensor();
  };
  const Tensor w = c.weight();
  const Fp8Crossed got =
      fp8_cross(c.stream, layer, edges, {x, edges.in ? Fp8Tensor() : codes(x)}, w);
  const Tensor all = crossed(c, edges.in, false, x);
  const Fp8Tensor all8 = codes(all);
  expect_same(got.x, all);
  expect_same(got.x8.codes, all8.codes);
  expect_same(got.x8.scales, all8.scales);
  expect_same(got.y, crossed(c, edges.out, false, layer.forward(c.stream, all, all8, w)));

  const Tensor dy = spread_tensor(c.device, got.y.shape(), Dtype::bf16, "dy");
  Fp8Kept want_owed;
  const auto [dx, owed] = fp8_cross_back(c.stream, layer, edges, dy, w);
  const Tensor g = crossed(c, edges.out, true, dy);
  const Tensor want = layer.input_gradient(c.stream, g, w, want_owed);
  expect_same(dx, crossed(c, edges.in, true, want));
  expect_same(owed.codes, want_owed.codes);
  expect_same(owed.scales, want_owed.scales);
  expect_same(owed.values, want_owed.values);
}

TEST(Fp8Cross, IsTheLayersProductsBetweenTheEdges) {
  HalvingTravel one, two;
  for (const std::string recipe :
       {"deepseek_v3", "mxfp8", "per_tensor", "block_gradients", "kept alone"}) {
    PrecisionConfig config = Fp8Case::v3();
    if (recipe == "kept alone") {
      config.fprop = config.dgrad = config.wgrad = false;
    } else {
      config.recipe = recipe;
    }
    for (const Edges edges : {Edges{}, Edges{.in = &one}, Edges{.out = &two}, Edges{&one, &two}}) {
      SCOPED_TRACE(recipe);
      expect_the_layers_products(config, edges);
    }
  }
}

// A probe sees whole products; what travels, and every result, is the same.
TEST(Fp8Cross, AProbeChangesNothing) {
  HalvingTravel edge;
  Fp8Case c("layers.0.mlp.down.weight", {140, 300});
  const Tensor x = spread_tensor(c.device, {40, 300}, Dtype::bf16, "x");
  const Tensor want = fp8_cross(c.stream, c.layer(), {.in = &edge}, {x, {}}, c.weight()).y;
  const Fp8CrossedBack back = fp8_cross_back(c.stream, c.layer(), {.in = &edge}, want, c.weight());
  Fp8Probe probe;
  c.layer().set_probe(&probe);
  expect_same(fp8_cross(c.stream, c.layer(), {.in = &edge}, {x, {}}, c.weight()).y, want);
  const Fp8CrossedBack probed =
      fp8_cross_back(c.stream, c.layer(), {.in = &edge}, want, c.weight());
  expect_same(probed.dx, back.dx);
  expect_same(probed.owed.codes, back.owed.codes);
  const int index = c.param().index;
  EXPECT_EQ(probe.figures().count({index, LinearProduct::fprop}), 1u);
  EXPECT_EQ(probe.figures().count({index, LinearProduct::dgrad}), 1u);
}

}  // namespace
}  // namespace shoestring
