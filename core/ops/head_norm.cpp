#include "core/ops/head_norm.h"

#include "core/check.h"
#include "core/ops/rms_norm.h"
#include "core/text.h"

namespace shoestring {

Tensors<1> HeadNorm::forward(Stream& stream, const Attributes& attributes, const Tensors<1>& inputs,
                             const Tensors<1>& gain, Saved& saved) {
  const Tensor& x = inputs[0];
  const int64_t width = gain[0].elements();
  if (width == 0 || x.columns() % width != 0) {
    fail(cat("[head_norm] x is ", x.text(), ": its columns are not a multiple of the head size ",
             width));
  }
  const int64_t rows = x.elements() / width;
  const Dtype statistics = x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  NormForward a{.rows = rows,
                .width = width,
                .eps = attributes.eps,
                .x = x,
                .gain = gain[0],
                .n = Tensor(stream.device(), x.shape(), x.dtype()),
                .inverse = Tensor(stream.device(), {rows}, statistics)};
  norm_rows(stream, name, a);
  saved = {.x = x, .inverse = a.inverse};
  return {a.n};
}

Tensors<1> HeadNorm::grad_input(Stream& stream, const Attributes&, const Saved& saved,
                                const Tensors<1>& gain, const Tensors<1>& dy,
                                const Tensors<1>& dgain) {
  if (!dy[0]) return {};
  const Tensor& x = saved.x;
  Tensor dx(stream.device(), x.shape(), x.dtype());
  norm_rows_backward(stream, name,
                     {.rows = saved.inverse.elements(),
                      .width = gain[0].elements(),
                      .h = x,
                      .inverse = saved.inverse,
                      .gain = gain[0],
                      .dn = dy[0],
                      .dx = dx,
                      .dgain = dgain[0]});
  return {dx};
}

}  // namespace shoestring
