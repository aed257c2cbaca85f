#include "core/ops/fp8_linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/ops/fp8_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// The op is the layer's three products, and what it keeps is one byte a value.
TEST(Fp8Linear, IsTheLayersProducts) {
  Fp8Case c("layers.0.mlp.down.weight", {40, 300});
  const Tensor x = spread_tensor(c.device, {2, 60, 300}, Dtype::bf16, "x");
  const Tensor dy = spread_tensor(c.device, {2, 60, 40}, Dtype::bf16, "dy");
  const Fp8Tensor x8 = quantise(c.stream, x, c.layer().input());
  Fp8Linear::InputSaved input;
  Fp8Linear::WeightSaved weight;
  const Fp8Linear::Attributes attributes{&c.layer()};
  const Tensor y = Fp8Linear::forward(c.stream, attributes, {x, x8.codes, x8.scales, {}, {}},
                                      {c.weight()}, input, weight)[0];
  EXPECT_EQ(y.shape(), (Shape{2, 60, 40}));
  const Tensor want = c.layer().forward(c.stream, x, x8, c.weight());
  EXPECT_EQ(0, std::memcmp(y.raw(), want.raw(), y.bytes()));
  size_t kept = 0;
  weight.each([&](Tensor& t) { kept += t ? t.bytes() : 0; });
  EXPECT_EQ(kept, size_t{120 * 300 + 120 * 3 * 4});
  Fp8Kept owed, want_owed;
  const auto dx = Fp8Linear::grad_input(c.stream, attributes, input, {c.weight()}, {dy}, owed);
  EXPECT_FALSE(dx[1] || dx[2] || dx[3] || dx[4]);
  EXPECT_EQ(owed.codes.bytes(), size_t{120 * 40});
  EXPECT_FALSE(owed.values);
  const Tensor want_dx = c.layer().input_gradient(c.stream, dy, c.weight(), want_owed);
  EXPECT_EQ(0, std::memcmp(dx[0].raw(), want_dx.raw(), want_dx.bytes()));
  Tensor dw = Tensor::zeros(c.device, {40, 300}, Dtype::f32),
         want_dw = Tensor::zeros(c.device, {40, 300}, Dtype::f32);
  Fp8Linear::grad_weight(c.stream, attributes, weight, owed, {dw});
  c.layer().weight_gradient(c.stream, want_owed, weight.x, want_dw);
  EXPECT_EQ(0, std::memcmp(dw.raw(), want_dw.raw(), dw.bytes()));
}

TEST(Fp8Linear, AbsentGradientsStayAbsent) {
  Fp8Case c("layers.0.mlp.down.weight", {8, 16});
  Fp8Kept owed;
  EXPECT_FALSE(Fp8Linear::grad_input(c.stream, {&c.layer()}, {}, {c.weight()}, {}, owed)[0]);
  EXPECT_FALSE(owed);
  Tensor dw = Tensor::zeros(c.device, {8, 16}, Dtype::f32);
  Fp8Linear::grad_weight(c.stream, {&c.layer()}, {}, owed, {dw});
  EXPECT_EQ(dw.data<float>()[0], 0);
}

TEST(Fp8Linear, WrongShapesAreNamed) {
  Fp8Case c("layers.0.mlp.down.weight", {8, 16});
  Fp8Linear::InputSaved input;
  Fp8Linear::WeightSaved weight;
  const Tensor x = spread_tensor(c.device, {3, 15}, Dtype::bf16, "x");
  EXPECT_THROW(Fp8Linear::forward(c.stream, {&c.layer()}, {x}, {c.weight()}, input, weight), Error);
}

}  // namespace
}  // namespace shoestring
