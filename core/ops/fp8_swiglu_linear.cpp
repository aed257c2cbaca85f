#include "core/ops/fp8_swiglu_linear.h"

#include "core/ops/fp8_crossing.h"
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
  const Tensor y = fp8_cross(stream, layer, attributes.edges, {product, product8}, w[0]).y;
  const Fp8Tensor kept = quantise(stream, gu[0], layer.input());
  input = {.codes = kept.codes, .scales = kept.scales};
  weight = {
      .codes = kept.codes, .scales = kept.scales, .product = layer.probed() ? product : Tensor()};
  return {y};
}

bool Fp8SwigluLinear::refill(Stream& stream, const Attributes& attributes, const Tensors<1>& gu,
                             InputSaved& input, WeightSaved& weight) {
  Fp8Layer& layer = *attributes.layer;
  if (layer.probed()) return false;
  const Fp8Tensor kept = quantise(stream, gu[0], layer.input());
  input = {.codes = kept.codes, .scales = kept.scales};
  weight = {.codes = kept.codes, .scales = kept.scales, .product = {}};
  return true;
}

Tensors<1> Fp8SwigluLinear::grad_input(Stream& stream, const Attributes& attributes,
                                       const InputSaved& input, const Tensors<1>& w,
                                       const Tensors<1>& dy, Owed& owed) {
  if (!dy[0]) return {};
  const Fp8Tensor kept{input.codes, input.scales, attributes.layer->input()};
  Fp8CrossedBack back = fp8_cross_back(stream, *attributes.layer, attributes.edges, dy[0], w[0]);
  owed = std::move(back.owed);
  const Tensor gu = dequantise(stream, kept, dy[0].dtype());
  return Swiglu::grad_input(stream, {}, {.gu = gu}, {back.dx});
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
