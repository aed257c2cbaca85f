#include "core/fp8/experts.h"

#include <cstring>

#include "core/check.h"
#include "core/fp8/packed_rows.h"
#include "core/ops/convert.h"
#include "core/ops/grouped_linear.h"

namespace shoestring {

bool input_is_sent(const Fp8Layer& layer) {
  return layer.param().info.name.ends_with(".experts.gate_up.weight") && layer.recipe().fprop &&
         layer.copy() == Fp8Copy::fp8 && can_be_packed(layer.input());
}

bool gradient_is_sent(const Fp8Layer& layer) {
  return layer.param().info.name.ends_with(".experts.down.weight") && layer.recipe().dgrad &&
         layer.recipe().wgrad && can_be_packed(layer.gradient());
}

Fp8Experts::Fp8Experts(Stream& stream, Fp8Layer& layer, std::vector<int64_t> borders,
                       int64_t sources)
    : stream_(stream), layer_(layer), borders_(std::move(borders)), sources_(sources) {
  const int64_t experts = matrix_of(static_cast<int64_t>(borders_.size()) - 1);
  const Shape& w = layer.param().info.shape;
  outputs_ = w[0] / experts;
  inputs_ = w[1];
  for (int64_t e = 0; e <= experts; ++e) matrices_.push_back(e * outputs_);
}

// [R, columns] with zeros behind the last border.
Tensor Fp8Experts::rows_like(const Tensor& x, int64_t columns) const {
  Tensor y(stream_.device(), {x.rows(), columns}, is_packed(x) ? layer_.dtype() : x.dtype());
  stream_.run(
      [rest = y.rows(borders_.back(), y.rows())] { std::memset(rest.raw(), 0, rest.bytes()); });
  return y;
}

// Of rows of values, or of packed ones with this many values each.
Fp8Segments Fp8Experts::codes_of(const Tensor& rows, int64_t columns, const Fp8Encoding& encoding,
                                 MemoryKind kind) const {
  if (!is_packed(rows)) return quantise_segments(stream_, rows, encoding, borders_, kind);
  const Fp8Tensor apart = unpack_rows(stream_, rows, columns, encoding, kind);
  return {apart.codes, apart.scales, encoding, borders_};
}

// Where the product of one segment of rows goes.
Tensor Fp8Experts::matrix_gradient(const Tensor& dw, int64_t segment) const {
  const auto matrix = static_cast<size_t>(matrix_of(segment));
  return gradient_of_source(dw, {matrices_.back(), inputs_}, segment % sources_, sources_)
      .rows(matrices_[matrix], matrices_[matrix + 1]);
}

void Fp8Experts::multiply(Form form, const Tensor& c, const Fp8Segments& a,
                          const Fp8Segments& b) const {
  for (int64_t e = 0; e < a.count(); ++e) {
    const auto at = static_cast<size_t>(e);
    if (borders_[at] == borders_[at + 1]) continue;
    const bool weight = form == Form::weight;
    fp8_product(stream_,
                {.c = weight ? matrix_gradient(c, e) : c.rows(borders_[at], borders_[at + 1]),
                 .a = a.segment(e),
                 .b = b.segment(weight ? e : matrix_of(e)),
                 .transpose_a = form == Form::weight,
                 .transpose_b = form == Form::forward,
                 .accumulate = form == Form::weight,
                 .arithmetic = layer_.recipe().arithmetic});
  }
}

void Fp8Experts::multiply_full(Form form, const Tensor& c, const Tensor& a, const Tensor& b) const {
  for (size_t e = 0; e + 1 < borders_.size(); ++e) {
    if (borders_[e] == borders_[e + 1]) continue;
    const auto tokens = [&](const Tensor& x) { return x.rows(borders_[e], borders_[e + 1]); };
    const auto at = static_cast<size_t>(matrix_of(static_cast<int64_t>(e)));
    const bool weight = form == Form::weight;
    const Tensor ce = weight ? matrix_gradient(c, static_cast<int64_t>(e)) : tokens(c);
    const Tensor ae = tokens(a);
    const Tensor be = weight ? tokens(b) : b.rows(matrices_[at], matrices_[at + 1]);
    const MatmulSpec spec = {.transpose_a = weight,
                             .transpose_b = form == Form::forward,
                             .accumulate = weight,
                             .exact = true};
    stream_.run(
        [&device = stream_.device(), ce, ae, be, spec] { matmul(device, ce, ae, be, spec); });
  }
}

Fp8Kept Fp8Experts::store(const Tensor& x) const {
  const Fp8Segments x8 = codes_of(x, inputs_, layer_.input(), MemoryKind::activations);
  return {.codes = x8.codes, .scales = x8.scales, .values = {}};
}

Tensor Fp8Experts::load(const Fp8Kept& kept, Dtype to) const {
  return dequantise_segments(stream_, {kept.codes, kept.scales, layer_.input(), borders_}, to);
}

Tensor Fp8Experts::forward(const Tensor& x, const Tensor& w, Fp8Kept* kept) {
  check(!is_packed(x) || packs_input(layer_), "packed rows where experts read values");
  Fp8Kept stored;
  if (layer_.wants_codes()) stored = store(x);
  Tensor y = rows_like(x, outputs_);
  if (layer_.recipe().fprop) {
    const Fp8Segments x8{stored.codes, stored.scales, layer_.input(), borders_};
    const Fp8Segments w8 = layer_.weight_segments(stream_, w, matrices_, false);
    multiply(Form::forward, y, x8, w8);
    if (Fp8Probe* probe = layer_.probe(); probe != nullptr && probe->watches_forward()) {
      const Tensor full = rows_like(x, outputs_);
      multiply_full(Form::forward, full, x, w);
      stream_.synchronize();
      probe->compare(layer_.param().index, LinearProduct::fprop, y, full);
      tell(LinearProduct::fprop, x, x8);
      tell(LinearProduct::fprop, w, w8);
    }
  } else {
    multiply_full(Form::forward, y, x, w);
  }
  if (kept != nullptr) {
    *kept = layer_.copy() == Fp8Copy::full ? Fp8Kept{} : stored;
    if (layer_.copy() == Fp8Copy::full || layer_.probed()) kept->values = x;
  }
  return y;
}

void Fp8Experts::tell(LinearProduct product, const Tensor& x, const Fp8Segments& x8) {
  for (int64_t e = 0; e < x8.count(); ++e) {
    const int64_t begin = x8.borders[static_cast<size_t>(e)];
    const int64_t end = x8.borders[static_cast<size_t>(e) + 1];
    if (begin == end) continue;
    layer_.probe()->tell(layer_.param().index, product, x.rows(begin, end), x8.segment(e));
  }
}

void Fp8Experts::multiply_input(const Tensor& dx, const Tensor& dy, const Fp8Segments& dy8,
                                const Tensor& w) {
  const Fp8Segments w8 = layer_.weight_segments(stream_, w, matrices_, true);
  multiply(Form::input, dx, dy8, w8);
  Fp8Probe* probe = layer_.probe();
  if (probe == nullptr) return;
  const Tensor full = rows_like(dy, inputs_);
  multiply_full(Form::input, full, dy, w);
  stream_.synchronize();
  probe->compare(layer_.param().index, LinearProduct::dgrad, dx, full);
  tell(LinearProduct::dgrad, dy, dy8);
  tell(LinearProduct::dgrad, w, w8);
}

Tensor Fp8Experts::input_gradient(const Tensor& dy, const Tensor& w, Fp8Kept& owed) {
  check(!is_packed(dy) || packs_gradient(layer_), "packed rows where experts read values");
  const bool wgrad = layer_.recipe().wgrad, sent = gradient_is_sent(layer_);
  const Fp8Encoding gradient = layer_.gradient(), along_tokens = gradient.transposed();
  const bool serves = wgrad && gradient == along_tokens;
  owed = {.codes = {}, .scales = {}, .values = !wgrad || layer_.probed() ? dy : Tensor()};
  Tensor dx = rows_like(dy, inputs_);
  auto keep = [&owed](const Fp8Segments& dy8) {
    owed.codes = dy8.codes;
    owed.scales = dy8.scales;
  };
  if (layer_.recipe().dgrad) {
    const Fp8Segments dy8 =
        codes_of(dy, outputs_, gradient, serves ? MemoryKind::activations : MemoryKind::workspace);
    multiply_input(dx, dy, dy8, w);
    if (serves) keep(dy8);
    if (sent) keep(requantise_segments(stream_, dy8, along_tokens, MemoryKind::activations));
  } else {
    multiply_full(Form::input, dx, dy, w);
  }
  if (wgrad && !owed.codes) {
    keep(quantise_segments(stream_, dy, along_tokens, borders_, MemoryKind::activations));
  }
  return dx;
}

void Fp8Experts::add_weight_gradient(const Fp8Kept& dy, const Fp8Segments& x8, const Tensor& full,
                                     const Tensor& dw) {
  const Fp8Segments dy8{dy.codes, dy.scales, layer_.gradient().transposed(), borders_};
  multiply(Form::weight, dw, dy8, x8);
  if (!layer_.probed() || !full || !dy.values) return;
  stream_.synchronize();
  tell(LinearProduct::wgrad, dy.values, dy8);
  tell(LinearProduct::wgrad, full, x8);
}

void Fp8Experts::compare_weight(const Tensor& before, const Tensor& dy, const Tensor& full,
                                const Tensor& dw) {
  const Tensor want =
      Tensor::zeros(stream_.device(), dw.shape(), Dtype::f32, MemoryKind::workspace);
  multiply_full(Form::weight, want, dy, full);
  scale(stream_, before, -1);
  accumulate(stream_, before, dw);  // what was added
  stream_.synchronize();
  layer_.probe()->compare(layer_.param().index, LinearProduct::wgrad, before, want);
}

void Fp8Experts::weight_gradient(const Fp8Kept& dy, const Fp8Layer::MadeAgain& x,
                                 const Tensor& dw) {
  if (!layer_.recipe().wgrad) {
    multiply_full(Form::weight, dw, dy.values, x.input);
    return;
  }
  const bool compares = layer_.probed() && x.full && dy.values;
  const Tensor before =
      compares ? convert(stream_, dw, Dtype::f32, MemoryKind::workspace) : Tensor();
  add_weight_gradient(
      dy, quantise_segments(stream_, x.input, layer_.input().transposed(), borders_), x.input, dw);
  if (compares) compare_weight(before, dy.values, x.full, dw);
}

void Fp8Experts::weight_gradient(const Fp8Kept& dy, const Fp8Kept& kept, const Tensor& dw) {
  if (layer_.copy() == Fp8Copy::full) {
    weight_gradient(dy, Fp8Layer::MadeAgain{.input = kept.values, .full = kept.values}, dw);
    return;
  }
  const bool compares = layer_.probed() && kept.values && dy.values;
  const Tensor before =
      compares ? convert(stream_, dw, Dtype::f32, MemoryKind::workspace) : Tensor();
  const Fp8Segments stored{kept.codes, kept.scales, layer_.input(), borders_};
  const Fp8Encoding along_tokens = layer_.input().transposed();
  // Square tiles, and one scale for all, serve both directions as they are.
  const bool serves = along_tokens == stored.encoding;
  const Tensor told =
      compares && !serves ? dequantise_segments(stream_, stored, Dtype::f32) : kept.values;
  add_weight_gradient(dy, serves ? stored : requantise_segments(stream_, stored, along_tokens),
                      told, dw);
  if (compares) compare_weight(before, dy.values, kept.values, dw);
}

}  // namespace shoestring
