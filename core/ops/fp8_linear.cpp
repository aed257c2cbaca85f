#include "core/ops/fp8_linear.h"

#include "core/ops/linear.h"

namespace shoestring {

Tensors<1> Fp8Linear::forward(Stream& stream, const Attributes& attributes, const Tensors<5>& x,
                              const Tensors<1>& w, InputSaved&, WeightSaved& weight) {
  Linear::shape(x[0].shape(), w[0].shape());
  check_tensor(name, "w", w[0], w[0].shape(), x[0].dtype());
  Fp8Layer& layer = *attributes.layer;
  const Fp8Tensor x8{x[1], x[2], layer.input()};
  Tensor y = layer.forward(stream, x[0], x8, w[0]);
  weight.x = layer.keep(stream, x[0], x8, {x[3], x[4]});
  return {y};
}

Tensors<5> Fp8Linear::grad_input(Stream& stream, const Attributes& attributes, const InputSaved&,
                                 const Tensors<1>& w, const Tensors<1>& dy, Owed& owed) {
  if (!dy[0]) return {};
  return {attributes.layer->input_gradient(stream, dy[0], w[0], owed)};
}

void Fp8Linear::grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                            const Owed& owed, const Tensors<1>& dw) {
  if (!owed) return;
  attributes.layer->weight_gradient(stream, owed, weight.x, dw[0]);
}

}  // namespace shoestring
