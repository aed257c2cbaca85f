#include "core/ops/fp8_linear.h"

#include "core/ops/fp8_crossing.h"
#include "core/ops/linear.h"

namespace shoestring {

Tensors<1> Fp8Linear::forward(Stream& stream, const Attributes& attributes, const Tensors<5>& x,
                              const Tensors<1>& w, InputSaved&, WeightSaved& weight) {
  Linear::shape(x[0].shape(), w[0].shape());
  check_tensor(name, "w", w[0], w[0].shape(), x[0].dtype());
  Fp8Layer& layer = *attributes.layer;
  const Fp8Tensor x8{x[1], x[2], layer.input()};
  const Fp8Crossed c = fp8_cross(stream, layer, attributes.edges, {x[0], x8}, w[0]);
  weight.x = layer.keep(stream, c.x, c.x8, {x[3], x[4]});
  return {c.y};
}

// Rows that came over an edge would have to come again.
bool Fp8Linear::refill(Stream& stream, const Attributes& attributes, const Tensors<5>& x,
                       InputSaved&, WeightSaved& weight) {
  if (attributes.edges.in != nullptr) return false;
  Fp8Layer& layer = *attributes.layer;
  weight.x = layer.keep(stream, x[0], {x[1], x[2], layer.input()}, {x[3], x[4]});
  return true;
}

Tensors<5> Fp8Linear::grad_input(Stream& stream, const Attributes& attributes, const InputSaved&,
                                 const Tensors<1>& w, const Tensors<1>& dy, Owed& owed) {
  if (!dy[0]) return {};
  Fp8CrossedBack back = fp8_cross_back(stream, *attributes.layer, attributes.edges, dy[0], w[0]);
  owed = std::move(back.owed);
  return {std::move(back.dx)};
}

void Fp8Linear::grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                            const Owed& owed, const Tensors<1>& dw) {
  if (!owed) return;
  attributes.layer->weight_gradient(stream, owed, weight.x, dw[0]);
}

}  // namespace shoestring
