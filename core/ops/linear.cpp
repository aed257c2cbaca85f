#include "core/ops/linear.h"

#include "core/check.h"
#include "core/matmul.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Job {
  Tensor c, a, b;
  MatmulSpec spec;
};
void product_cpu(Stream& stream, const Job& job) {
  stream.run([&device = stream.device(), job] { matmul(device, job.c, job.a, job.b, job.spec); });
}
void product(Stream& stream, const Job& job) {
  on<const Job&>(stream, Linear::name, product_cpu, nullptr, job);
}

MatmulSpec spec_of(const Linear::Attributes& attributes) {
  return {.exact = attributes.exact, .alpha = attributes.output_multiplier};
}

Shape with_columns(Shape shape, int64_t columns) {
  shape.set(shape.rank() - 1, columns);
  return shape;
}

}  // namespace

Shape Linear::shape(const Shape& x, const Shape& w) {
  if (x.rank() < 1 || w.rank() != 2 || x.columns() != w[1]) {
    fail(
        cat("[linear] x ", x.text(), " does not fit w ", w.text(), ": x is [..., I], w is [O, I]"));
  }
  return with_columns(x, w[0]);
}

void Linear::multiply(Stream& stream, const Attributes& attributes, const Tensor& x,
                      const Tensor& w, const Tensor& y) {
  MatmulSpec spec = spec_of(attributes);
  spec.transpose_b = true;
  product(stream, {y, x, w, spec});
}

void Linear::multiply_gradient(Stream& stream, const Attributes& attributes, const Tensor& dy,
                               const Tensor& w, const Tensor& dx) {
  product(stream, {dx, dy, w, spec_of(attributes)});
}

Tensors<1> Linear::forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                           const Tensors<1>& w, InputSaved&, WeightSaved& weight) {
  check_tensor(name, "w", w[0], w[0].shape(), x[0].dtype());
  Tensor y(stream.device(), shape(x[0].shape(), w[0].shape()), x[0].dtype());
  multiply(stream, attributes, x[0], w[0], y);
  weight.x = x[0];
  return {y};
}

Tensors<1> Linear::grad_input(Stream& stream, const Attributes& attributes, const InputSaved&,
                              const Tensors<1>& w, const Tensors<1>& dy) {
  if (!dy[0]) return {};
  check_tensor(name, "dy", dy[0], with_columns(dy[0].shape(), w[0].shape()[0]), w[0].dtype());
  Tensor dx(stream.device(), with_columns(dy[0].shape(), w[0].shape()[1]), dy[0].dtype());
  multiply_gradient(stream, attributes, dy[0], w[0], dx);
  return {dx};
}

void Linear::grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                         const Tensors<1>& dy, const Tensors<1>& dw) {
  if (!dy[0]) return;
  const Tensor& x = weight.x;
  check_tensor(name, "dy", dy[0], with_columns(x.shape(), dy[0].columns()), x.dtype());
  check_tensor(name, "dw", dw[0], {dy[0].columns(), x.columns()},
               x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  MatmulSpec spec = spec_of(attributes);
  spec.transpose_a = spec.accumulate = true;
  product(stream, {dw[0], dy[0], x, spec});
}

}  // namespace shoestring
