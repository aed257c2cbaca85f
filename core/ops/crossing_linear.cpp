#include "core/ops/crossing_linear.h"

#include "core/ops/linear.h"

namespace shoestring {

Tensors<1> CrossingLinear::forward(Stream& stream, const Attributes& attributes,
                                   const Tensors<1>& x, const Tensors<1>& w, InputSaved&,
                                   WeightSaved& weight) {
  const int64_t columns = Linear::shape(x[0].shape(), w[0].shape()).columns();
  check_tensor(name, "w", w[0], w[0].shape(), x[0].dtype());
  const auto multiply = [&](const Tensor& all, int64_t first, const Tensor& rows) {
    Linear::multiply(stream, {.exact = attributes.exact}, all.rows(first, first + rows.rows()),
                     w[0], rows);
  };
  Crossed c = cross_linear(stream, attributes.edges, x[0],
                           {.columns = columns, .read = {}, .multiply = multiply});
  weight.x = std::move(c.argument);
  return {std::move(c.result)};
}

Tensors<1> CrossingLinear::grad_input(Stream& stream, const Attributes& attributes,
                                      const InputSaved&, const Tensors<1>& w, const Tensors<1>& dy,
                                      Owed& owed) {
  if (!dy[0]) return {};
  check_tensor(name, "dy", dy[0], {dy[0].rows(), w[0].shape()[0]}, w[0].dtype());
  const auto multiply = [&](const Tensor& all, int64_t first, const Tensor& rows) {
    Linear::multiply_gradient(stream, {.exact = attributes.exact},
                              all.rows(first, first + rows.rows()), w[0], rows);
  };
  Crossed c = cross_linear_back(stream, attributes.edges, dy[0],
                                {.columns = w[0].columns(), .read = {}, .multiply = multiply});
  owed.dy = std::move(c.argument);
  return {std::move(c.result)};
}

void CrossingLinear::grad_weight(Stream& stream, const Attributes& attributes,
                                 const WeightSaved& weight, const Owed& owed,
                                 const Tensors<1>& dw) {
  Linear::grad_weight(stream, {.exact = attributes.exact}, {.x = weight.x}, {owed.dy}, dw);
}

}  // namespace shoestring
