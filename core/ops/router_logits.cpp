#include "core/ops/router_logits.h"

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
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
  on<const Job&>(stream, RouterLogits::name, product_cpu, nullptr, job);
}

Dtype wide(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

// The operand in the type of the logits' gradient.
Tensor widened(Stream& stream, const Tensor& x) {
  return x.dtype() == wide(x.dtype()) ? x
                                      : convert(stream, x, wide(x.dtype()), MemoryKind::workspace);
}

}  // namespace

Tensors<1> RouterLogits::forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                                 const Tensors<1>& w, InputSaved&, WeightSaved& weight) {
  if (w[0].shape().rank() != 2 || x[0].columns() != w[0].columns()) {
    fail(cat("[router_logits] x ", x[0].text(), " does not fit w ", w[0].text(),
             ": x is [T, d], w is [E, d]"));
  }
  check_tensor(name, "w", w[0], w[0].shape(), x[0].dtype());
  Tensor y(stream.device(), {x[0].rows(), w[0].rows()}, wide(x[0].dtype()));
  product(stream, {y, x[0], w[0], {.transpose_b = true, .exact = attributes.exact}});
  weight.x = x[0];
  return {y};
}

Tensors<1> RouterLogits::grad_input(Stream& stream, const Attributes& attributes, const InputSaved&,
                                    const Tensors<1>& w, const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const Dtype dtype = w[0].dtype();
  check_tensor(name, "dlogits", dy[0], {dy[0].rows(), w[0].rows()}, wide(dtype));
  Tensor dx(stream.device(), {dy[0].rows(), w[0].columns()}, wide(dtype));
  product(stream, {dx, dy[0], widened(stream, w[0]), {.exact = attributes.exact}});
  if (dtype == dx.dtype()) return {dx};
  return {convert(stream, dx, dtype)};
}

void RouterLogits::grad_weight(Stream& stream, const Attributes& attributes,
                               const WeightSaved& weight, const Tensors<1>& dy,
                               const Tensors<1>& dw) {
  if (!dy[0]) return;
  const Tensor& x = weight.x;
  check_tensor(name, "dlogits", dy[0], {x.rows(), dw[0].rows()}, wide(x.dtype()));
  check_tensor(name, "dw", dw[0], {dy[0].columns(), x.columns()}, wide(x.dtype()));
  const MatmulSpec spec = {.transpose_a = true, .accumulate = true, .exact = attributes.exact};
  product(stream, {dw[0], dy[0], widened(stream, x), spec});
}

}  // namespace shoestring
