#include "core/ops/router_logits.h"

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t T = 37, d = 24, E = 10;

struct Outcome {
  Tensor logits, dx, dw;
};

Outcome run(Device& device, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const Tensor x = make_tensor(device, {T, d}, dtype, random_values(T * d, 1));
  const Tensor w = make_tensor(device, {E, d}, dtype, random_values(E * d, 2));
  const Tensor dy = make_tensor(device, {T, E}, wide, random_values(T * E, 3));
  Outcome o;
  RouterLogits::InputSaved input;
  RouterLogits::WeightSaved weight;
  o.logits = RouterLogits::forward(stream, {}, {x}, {w}, input, weight)[0];
  o.dx = RouterLogits::grad_input(stream, {}, input, {w}, {dy})[0];
  o.dw = make_tensor(device, {E, d}, wide, std::vector<double>(E * d, 1));
  RouterLogits::grad_weight(stream, {}, weight, {dy}, {o.dw});
  return o;
}

// Sums of products of the rounded operands, in doubles.
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b,
                            const std::function<size_t(int64_t, int64_t)>& at_a,
                            const std::function<size_t(int64_t, int64_t)>& at_b,
                            std::array<int64_t, 3> sizes) {
  std::vector<double> c;
  for (int64_t i = 0; i < sizes[0]; ++i) {
    for (int64_t j = 0; j < sizes[1]; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < sizes[2]; ++k) sum += a[at_a(i, k)] * b[at_b(k, j)];
      c.push_back(sum);
    }
  }
  return c;
}

std::function<size_t(int64_t, int64_t)> rows(int64_t width) {
  return [width](int64_t i, int64_t k) { return static_cast<size_t>(i * width + k); };
}
std::function<size_t(int64_t, int64_t)> columns(int64_t width) {
  return [width](int64_t i, int64_t k) { return static_cast<size_t>(k * width + i); };
}

TEST(RouterLogits, AreWideProductsInEveryType) {
  Device device(DeviceKind::cpu, 0, 2);
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    const Outcome o = run(device, dtype);
    const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
    EXPECT_EQ(o.logits.dtype(), wide);
    EXPECT_EQ(o.dx.dtype(), dtype);
    EXPECT_EQ(o.dw.dtype(), wide);
    const auto x = values_of(make_tensor(device, {T, d}, dtype, random_values(T * d, 1)));
    const auto w = values_of(make_tensor(device, {E, d}, dtype, random_values(E * d, 2)));
    const auto dy = values_of(make_tensor(device, {T, E}, wide, random_values(T * E, 3)));
    const double inner = 200 * roundoff(wide);
    expect_near(o.logits, product(x, w, rows(d), columns(d), {T, E, d}), {1, inner}, "logits");
    expect_near(o.dx, product(dy, w, rows(E), rows(d), {T, d, E}), {1.01, inner}, "dx");
    auto dw = product(dy, x, columns(E), rows(d), {E, d, T});
    for (double& v : dw) v += 1;  // added to what was there
    expect_near(o.dw, dw, {1, inner}, "dw");
  }
}

TEST(RouterLogits, RefusesWhatDoesNotFitAndSkipsEmptyGradients) {
  Device device;
  Stream stream = Stream::immediate(device);
  RouterLogits::InputSaved input;
  RouterLogits::WeightSaved weight;
  const Tensor x = Tensor::zeros(device, {3, 4}, Dtype::f32);
  const Tensor narrow = Tensor::zeros(device, {2, 3}, Dtype::f32);
  const Tensor other = Tensor::zeros(device, {2, 4}, Dtype::bf16);
  EXPECT_THROW(RouterLogits::forward(stream, {}, {x}, {narrow}, input, weight), Error);
  EXPECT_THROW(RouterLogits::forward(stream, {}, {x}, {other}, input, weight), Error);
  EXPECT_FALSE(RouterLogits::grad_input(stream, {}, input, {x}, {Tensor()})[0]);
}

}  // namespace
}  // namespace shoestring
