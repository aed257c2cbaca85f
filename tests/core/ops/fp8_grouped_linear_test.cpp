#include "core/ops/fp8_grouped_linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "core/fp8/packed_rows.h"
#include "core/ops/swiglu.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/ops/fp8_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

const std::vector<int32_t> offsets = {0, 40, 40, 95};
constexpr int64_t rows = 100, outputs = 24, inputs = 136;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.text() == b.text() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct Outcome {
  Tensor y, dx, dw;
  size_t kept = 0, owed = 0;
};
Outcome run(Fp8Case& c, bool swiglu, const Tensor& x, const Tensor& dy,
            const std::vector<int32_t>& at = offsets, int64_t sources = 1) {
  const Tensor borders = Tensor::from<int32_t>(c.device, {static_cast<int64_t>(at.size())}, at);
  Fp8GroupedLinear::InputSaved input;
  Fp8GroupedLinear::WeightSaved weight;
  const Fp8GroupedLinear::Attributes attributes{&c.layer(), swiglu, sources};
  Outcome r;
  r.y =
      Fp8GroupedLinear::forward(c.stream, attributes, {x, borders}, {c.weight()}, input, weight)[0];
  weight.x.each([&](Tensor& t) { r.kept += t ? t.bytes() : 0; });
  Fp8Kept owed;
  r.dx = Fp8GroupedLinear::grad_input(c.stream, attributes, input, {c.weight()}, {dy}, owed)[0];
  owed.each([&](Tensor& t) { r.owed += t ? t.bytes() : 0; });
  r.dw = Tensor::zeros(c.device, c.weight().shape(), Dtype::f32);
  Fp8GroupedLinear::grad_weight(c.stream, attributes, weight, owed, {r.dw});
  return r;
}

TEST(Fp8GroupedLinear, IsTheExpertsProducts) {
  Fp8Case c("layers.0.moe.experts.gate_up.weight", {3 * outputs, inputs});
  const Tensor x = spread_tensor(c.device, {rows, inputs}, Dtype::bf16, "x");
  const Tensor dy = spread_tensor(c.device, {rows, outputs}, Dtype::bf16, "dy");
  const Outcome got = run(c, false, x, dy);
  EXPECT_EQ(got.kept, size_t{rows * inputs + 95 * 2 * 4});        // codes, a scale a tile
  EXPECT_EQ(got.owed, size_t{rows * outputs + 2 * outputs * 4});  // ditto; two experts have rows
  Fp8Experts experts(c.stream, c.layer(), {offsets.begin(), offsets.end()});
  Fp8Kept kept;
  EXPECT_TRUE(same_bits(got.y, experts.forward(x, c.weight(), &kept)));
  Fp8Kept owed;
  EXPECT_TRUE(same_bits(got.dx, experts.input_gradient(dy, c.weight(), owed)));
  Tensor dw = Tensor::zeros(c.device, {3 * outputs, inputs}, Dtype::f32);
  experts.weight_gradient(owed, kept, dw);
  EXPECT_TRUE(same_bits(got.dw, dw));
}

TEST(Fp8GroupedLinear, MakesTheProductOfGateAndUpAgain) {
  Fp8Case c("layers.0.moe.experts.down.weight", {3 * outputs, inputs});
  const Tensor gu = spread_tensor(c.device, {rows, 2 * inputs}, Dtype::bf16, "gu");
  const Tensor dy = spread_tensor(c.device, {rows, outputs}, Dtype::bf16, "dy");
  const Outcome got = run(c, true, gu, dy);
  EXPECT_EQ(got.kept, size_t{rows * 2 * inputs + 95 * 3 * 4});
  Fp8Experts experts(c.stream, c.layer(), {offsets.begin(), offsets.end()});
  Swiglu::Saved saved;
  const Tensor product = Swiglu::forward(c.stream, {}, {gu}, saved)[0];
  EXPECT_TRUE(same_bits(got.y, experts.forward(product, c.weight(), nullptr)));
  const Tensor again = experts.load(experts.store(gu), Dtype::bf16);
  const Tensor product_again = Swiglu::forward(c.stream, {}, {again}, saved)[0];
  Fp8Kept owed;
  const Tensor dp = experts.input_gradient(dy, c.weight(), owed);
  EXPECT_TRUE(same_bits(got.dx, Swiglu::grad_input(c.stream, {}, saved, {dp})[0]));
  Tensor dw = Tensor::zeros(c.device, {3 * outputs, inputs}, Dtype::f32);
  experts.weight_gradient(owed, Fp8Layer::MadeAgain{product_again, Tensor()}, dw);
  EXPECT_TRUE(same_bits(got.dw, dw));
}

// Between ranks codes travel, and rows of several sources meet: the numbers are those of bf16 rows.
TEST(Fp8GroupedLinear, TakesPackedRowsOfSeveralSources) {
  const std::vector<int32_t> at = {0, 30, 40, 40, 40, 60, 95};
  Fp8Case up("layers.0.moe.experts.gate_up.weight", {3 * outputs, inputs});
  const Tensor x = spread_tensor(up.device, {rows, inputs}, Dtype::bf16, "x");
  const Tensor dy = spread_tensor(up.device, {rows, outputs}, Dtype::bf16, "dy");
  const Outcome want = run(up, false, x, dy, at, 2);
  const Outcome got = run(up, false, pack_rows(up.stream, x, up.layer().input()), dy, at, 2);
  EXPECT_TRUE(same_bits(got.y, want.y) && same_bits(got.dx, want.dx) && same_bits(got.dw, want.dw));
  EXPECT_FALSE(same_bits(want.dw, run(up, false, x, dy).dw));  // one source: other tiles
  Fp8Case down("layers.0.moe.experts.down.weight", {3 * outputs, inputs});
  const Tensor gu = spread_tensor(down.device, {rows, 2 * inputs}, Dtype::bf16, "gu");
  const Tensor dz = spread_tensor(down.device, {rows, outputs}, Dtype::bf16, "dz");
  const Outcome want2 = run(down, true, gu, dz, at, 2);
  const Outcome got2 =
      run(down, true, gu, pack_rows(down.stream, dz, down.layer().gradient()), at, 2);
  EXPECT_TRUE(same_bits(got2.dx, want2.dx) && same_bits(got2.dw, want2.dw));
  EXPECT_THROW(run(down, true, gu, dz, at, 4), Error);  // 6 segments of 4 sources
}

TEST(Fp8GroupedLinear, RefusesWhatDoesNotFit) {
  Fp8Case c("layers.0.moe.experts.down.weight", {3 * outputs, inputs});
  const Tensor x = spread_tensor(c.device, {90, inputs}, Dtype::bf16, "x");  // offsets end at 95
  const Tensor dy = spread_tensor(c.device, {90, outputs}, Dtype::bf16, "dy");
  EXPECT_THROW(run(c, false, x, dy), Error);
  const Tensor wide = spread_tensor(c.device, {rows, inputs + 1}, Dtype::bf16, "x");
  EXPECT_THROW(run(c, false, wide, dy), Error);
}

}  // namespace
}  // namespace shoestring
