#include "core/ops/fp8_swiglu_linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/ops/swiglu.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/ops/fp8_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Parts {
  Tensor y, dgu, dw;
};

Parts run(Fp8Case& c, const Tensor& gu, const Tensor& dy, size_t* kept = nullptr) {
  Fp8SwigluLinear::InputSaved input;
  Fp8SwigluLinear::WeightSaved weight;
  const Fp8SwigluLinear::Attributes attributes{&c.layer()};
  Parts p;
  p.y = Fp8SwigluLinear::forward(c.stream, attributes, {gu}, {c.weight()}, input, weight)[0];
  if (kept != nullptr) *kept = weight.codes.bytes() + weight.scales.bytes();
  EXPECT_EQ(input.codes.block(), weight.codes.block());  // one copy for both phases
  Fp8Kept owed;
  p.dgu = Fp8SwigluLinear::grad_input(c.stream, attributes, input, {c.weight()}, {dy}, owed)[0];
  p.dw = Tensor::zeros(c.device, c.weight().shape(), Dtype::f32);
  Fp8SwigluLinear::grad_weight(c.stream, attributes, weight, owed, {p.dw});
  return p;
}

void expect_same(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.text(), b.text());
  EXPECT_EQ(0, std::memcmp(a.raw(), b.raw(), a.bytes()));
}

// Forward from gu, backward from what FP8 kept of it.
TEST(Fp8SwigluLinear, IsSwigluAndTheLayersProducts) {
  Fp8Case c("layers.0.mlp.down.weight", {40, 200});
  const Tensor gu = spread_tensor(c.device, {90, 400}, Dtype::bf16, "gu");
  const Tensor dy = spread_tensor(c.device, {90, 40}, Dtype::bf16, "dy");
  size_t kept = 0;
  const Parts got = run(c, gu, dy, &kept);
  EXPECT_EQ(kept, size_t{90 * 400 + 90 * 4 * 4});
  Swiglu::Saved saved;
  const Tensor product = Swiglu::forward(c.stream, {}, {gu}, saved)[0];
  const Fp8Encoding e = c.layer().input();
  expect_same(got.y,
              c.layer().forward(c.stream, product, quantise(c.stream, product, e), c.weight()));
  const Tensor again = dequantise(c.stream, quantise(c.stream, gu, e), Dtype::bf16);
  Fp8Kept owed;
  const Tensor dp = c.layer().input_gradient(c.stream, dy, c.weight(), owed);
  const Tensor product_again = Swiglu::forward(c.stream, {}, {again}, saved)[0];
  expect_same(got.dgu, Swiglu::grad_input(c.stream, {}, saved, {dp})[0]);
  Tensor dw = Tensor::zeros(c.device, {40, 200}, Dtype::f32);
  c.layer().weight_gradient(c.stream, owed, Fp8Layer::MadeAgain{product_again, Tensor()}, dw);
  expect_same(got.dw, dw);
}

TEST(Fp8SwigluLinear, AProbeChangesNothingAndSeesThreeProducts) {
  Fp8Case c("layers.0.mlp.down.weight", {40, 200});
  const Tensor gu = spread_tensor(c.device, {90, 400}, Dtype::bf16, "gu");
  const Tensor dy = spread_tensor(c.device, {90, 40}, Dtype::bf16, "dy");
  const Parts plain = run(c, gu, dy);
  Fp8Probe probe;
  c.layer().set_probe(&probe);
  const Parts probed = run(c, gu, dy);
  expect_same(plain.y, probed.y);
  expect_same(plain.dgu, probed.dgu);
  expect_same(plain.dw, probed.dw);
  EXPECT_EQ(probe.figures().size(), 3u);
  for (const auto& [key, figures] : probe.figures()) {
    EXPECT_GT(figures.relative_error(), 0.005) << name_of(key.second);
    EXPECT_LT(figures.relative_error(), 0.12) << name_of(key.second);
  }
}

TEST(Fp8SwigluLinear, AbsentGradientsStayAbsent) {
  Fp8Case c("layers.0.mlp.down.weight", {8, 16});
  Fp8Kept owed;
  EXPECT_FALSE(Fp8SwigluLinear::grad_input(c.stream, {&c.layer()}, {}, {c.weight()}, {}, owed)[0]);
  Tensor dw = Tensor::zeros(c.device, {8, 16}, Dtype::f32);
  Fp8SwigluLinear::grad_weight(c.stream, {&c.layer()}, {}, owed, {dw});
  EXPECT_EQ(dw.data<float>()[0], 0);
}

}  // namespace
}  // namespace shoestring
