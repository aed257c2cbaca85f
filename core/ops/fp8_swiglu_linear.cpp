#include "core/ops/fp8_swiglu_linear.h"

#include "core/ops/linear.h"
#include "core/ops/swiglu.h"

namespace shoestring {

Tensors<1> Fp8SwigluLinear::forward(Stream& stream, const Attributes& attributes,
                                    const Tensors<1>& gu, const Tensors<1>& w, InputSaved& input,
                                    WeightSaved& weight) {
  Fp8Layer& layer = *attributes.layer;
  Swiglu::Saved nothing;
  const Tensor product = Swiglu::forward(stream, {}, gu, nothing)[0];
  Linear::shape(product.shape(), w[0].shape());
  check_tensor(name, "w", w[0], w[0].shape(), gu[0].dtype());
  const Fp8Tensor product8 = layer.recipe().fprop
                                 ? quantise(stream, product, layer.input(), MemoryKind::workspace)
                                 : Fp8Tensor();
  Tensor y = layer.forward(stream, product, product8, w[0]);
  const Fp8Tensor kept = quantise(stream, gu[0], layer.input());
  input = {.codes = kept.codes, .scales = kept.scales};
  weight = {
      .codes = kept.codes, .scales = kept.scales, .product = layer.probed() ? product : Tensor()};
  return {y};
}

Tensors<1> Fp8SwigluLinear::grad_input(Stream& stream, const Attributes& attributes,
                                       const InputSaved& input, const Tensors<1>& w,
                                       const Tensors<1>& dy, Owed& owed) {
  if (!dy[0]) return {};
  const Fp8Tensor kept{input.codes, input.scales, attributes.layer->input()};
  const Tensor dp = attributes.layer->input_gradient(stream, dy[0], w[0], owed);
  const Tensor gu = dequantise(stream, kept, dy[0].dtype());
  return Swiglu::grad_input(stream, {}, {.gu = gu}, {dp});
}

void Fp8SwigluLinear::grad_weight(Stream& stream, const Attributes& attributes,
                                  const WeightSaved& weight, const Owed& owed,
                                  const Tensors<1>& dw) {
  if (!owed) return;
  Fp8Layer& layer = *attributes.layer;
  const Fp8Tensor kept{weight.codes, weight.scales, layer.input()};
  Tensor gu = dequantise(stream, kept, layer.dtype());
  Swiglu::Saved nothing;
  const Tensor product = Swiglu::forward(stream, {}, {gu}, nothing)[0];
  gu = nothing.gu = {};
  layer.weight_gradient(stream, owed, Fp8Layer::MadeAgain{.input = product, .full = weight.product},
                        dw[0]);
}

}  // namespace shoestring
