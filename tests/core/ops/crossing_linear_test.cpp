#include "core/ops/crossing_linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "core/ops/linear.h"
#include "tests/core/fp8/fp8_twin.h"
#include "tests/core/halving_travel.h"

namespace shoestring {
namespace {

using testing::HalvingTravel;
using testing::spread_tensor;

Tensor through(Stream& stream, RowTravel* edge, bool back, const Tensor& x) {
  if (edge == nullptr) return x;
  const int64_t rows = back ? edge->rows_before(x.rows()) : edge->rows_beyond(x.rows());
  Tensor y(stream.device(), {rows, x.columns()}, x.dtype());
  back ? edge->cross_back(stream, x, y, {}) : edge->cross(stream, x, y, {});
  return y;
}

void expect_same(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.shape(), want.shape());
  EXPECT_EQ(0, std::memcmp(got.raw(), want.raw(), want.bytes()));
}

// Exact products have the same bits in any run of rows: the op is edges and linear one after the
// other, whose gradients are proven.
TEST(CrossingLinear, IsTheEdgesAndTheLinear) {
  Device device;
  Stream stream = Stream::immediate(device);
  HalvingTravel one, two;
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    for (const Edges edges : {Edges{.in = &one}, Edges{.out = &two}, Edges{&one, &two}}) {
      const Tensor x = spread_tensor(device, {16, 5}, dtype, "x");
      const Tensor w = spread_tensor(device, {7, 5}, dtype, "w");
      NothingSaved input;
      CrossingLinear::WeightSaved weight;
      const CrossingLinear::Attributes attributes{.exact = true, .edges = edges};
      const Tensor y = CrossingLinear::forward(stream, attributes, {x}, {w}, input, weight)[0];

      const Linear::Attributes plain{.exact = true};
      Linear::WeightSaved plain_weight;
      const Tensor all = through(stream, edges.in, false, x);
      const Tensor product = Linear::forward(stream, plain, {all}, {w}, input, plain_weight)[0];
      expect_same(y, through(stream, edges.out, false, product));

      const Tensor dy = spread_tensor(device, y.shape(), dtype, "dy");
      CrossingLinear::Owed owed;
      const Tensor dx = CrossingLinear::grad_input(stream, attributes, input, {w}, {dy}, owed)[0];
      const Tensor g = through(stream, edges.out, true, dy);
      expect_same(dx, through(stream, edges.in, true,
                              Linear::grad_input(stream, plain, input, {w}, {g})[0]));

      const Dtype sums = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
      const Tensor dw = Tensor::zeros(device, {7, 5}, sums),
                   want = Tensor::zeros(device, {7, 5}, sums);
      CrossingLinear::grad_weight(stream, attributes, weight, owed, {dw});
      Linear::grad_weight(stream, plain, plain_weight, {g}, {want});
      expect_same(dw, want);
    }
  }
}

TEST(CrossingLinear, AbsentGradientsStayAbsent) {
  Device device;
  Stream stream = Stream::immediate(device);
  HalvingTravel edge;
  const CrossingLinear::Attributes attributes{.edges = {.in = &edge}};
  CrossingLinear::Owed owed;
  const Tensor w = spread_tensor(device, {7, 5}, Dtype::f32, "w");
  EXPECT_FALSE(CrossingLinear::grad_input(stream, attributes, {}, {w}, {}, owed)[0]);
  const Tensor dw = Tensor::zeros(device, {7, 5}, Dtype::f32);
  CrossingLinear::grad_weight(stream, attributes, {}, owed, {dw});
  for (const float v : dw.span<float>()) EXPECT_EQ(v, 0);
}

TEST(CrossingLinear, ShapesThatDoNotFitAreNamed) {
  Device device;
  Stream stream = Stream::immediate(device);
  HalvingTravel edge;
  CrossingLinear::WeightSaved weight;
  NothingSaved input;
  const Tensor x = spread_tensor(device, {16, 4}, Dtype::f32, "x");
  const Tensor w = spread_tensor(device, {7, 5}, Dtype::f32, "w");
  EXPECT_THROW(CrossingLinear::forward(stream, {.edges = {.in = &edge}}, {x}, {w}, input, weight),
               Error);
}

}  // namespace
}  // namespace shoestring
