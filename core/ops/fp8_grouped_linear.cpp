#include "core/ops/fp8_grouped_linear.h"

#include <algorithm>

#include "core/check.h"
#include "core/fp8/packed_rows.h"
#include "core/ops/swiglu.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::vector<int64_t> borders_of(Stream& stream, const Tensor& offsets, int64_t rows,
                                int64_t sources) {
  stream.synchronize();  // the offsets are made on the stream
  const std::span<const int32_t> at = offsets.span<int32_t>();
  const size_t segments = at.size() - 1;
  if (at.size() < 2 || sources < 1 || segments % static_cast<size_t>(sources) != 0 ||
      at.front() != 0 || !std::is_sorted(at.begin(), at.end()) || at.back() > rows) {
    fail(cat(
        "[fp8_grouped_linear] offsets ", offsets.text(), " of ", rows,
        " rows must begin at 0, never fall, end within the rows and tell each expert's rows of ",
        sources, " sources"));
  }
  return {at.begin(), at.end()};
}

void check_weight(const Fp8GroupedLinear::Attributes& a, const Tensor& x, const Tensor& w,
                  int64_t experts) {
  const bool packed = is_packed(x);
  const int64_t columns = a.swiglu ? x.columns() / 2 : x.columns();
  const int64_t wanted = packed ? packed_columns(w.columns(), a.layer->input()) : w.columns();
  if (w.shape().rank() == 2 && w.rows() % experts == 0 && columns == wanted &&
      (packed || w.dtype() == x.dtype()) && x.shape().rank() == 2) {
    return;
  }
  fail(cat("[fp8_grouped_linear] rows ", x.text(), " of ", experts, " experts do not fit w ",
           w.text(), ": w is [E O, I] of the same type"));
}

}  // namespace

Tensors<1> Fp8GroupedLinear::forward(Stream& stream, const Attributes& a, const Tensors<2>& inputs,
                                     const Tensors<1>& w, InputSaved& input, WeightSaved& weight) {
  const auto& [x, offsets] = inputs;
  const std::vector<int64_t> borders = borders_of(stream, offsets, x.rows(), a.sources);
  check_weight(a, x, w[0], (static_cast<int64_t>(borders.size()) - 1) / a.sources);
  Fp8Experts experts(stream, *a.layer, borders, a.sources);
  input.offsets = weight.offsets = offsets;
  if (!a.swiglu) return {experts.forward(x, w[0], &weight.x)};
  Swiglu::Saved nothing;
  const Tensor product = Swiglu::forward(stream, {}, {x}, nothing)[0];
  Tensor y = experts.forward(product, w[0], nullptr);
  input.gate_up = weight.x = experts.store(x);
  if (a.layer->probed()) weight.x.values = product;
  return {y};
}

Tensors<2> Fp8GroupedLinear::grad_input(Stream& stream, const Attributes& a,
                                        const InputSaved& input, const Tensors<1>& w,
                                        const Tensors<1>& dy, Owed& owed) {
  if (!dy[0]) return {};
  Fp8Experts experts(stream, *a.layer, borders_of(stream, input.offsets, dy[0].rows(), a.sources),
                     a.sources);
  const Tensor dx = experts.input_gradient(dy[0], w[0], owed);
  if (!a.swiglu) return {dx, Tensor()};
  const Tensor gu = experts.load(input.gate_up, dx.dtype());
  return {Swiglu::grad_input(stream, {}, {.gu = gu}, {dx})[0], Tensor()};
}

void Fp8GroupedLinear::grad_weight(Stream& stream, const Attributes& a, const WeightSaved& weight,
                                   const Owed& owed, const Tensors<1>& dw) {
  if (!owed) return;
  const int64_t rows = owed.codes ? owed.codes.rows() : owed.values.rows();
  Fp8Experts experts(stream, *a.layer, borders_of(stream, weight.offsets, rows, a.sources),
                     a.sources);
  if (!a.swiglu) {
    experts.weight_gradient(owed, weight.x, dw[0]);
    return;
  }
  Swiglu::Saved nothing;
  Tensor gu = experts.load(weight.x, a.layer->dtype());
  const Tensor product = Swiglu::forward(stream, {}, {gu}, nothing)[0];
  gu = nothing.gu = {};
  experts.weight_gradient(owed, Fp8Layer::MadeAgain{.input = product, .full = weight.x.values},
                          dw[0]);
}

}  // namespace shoestring
