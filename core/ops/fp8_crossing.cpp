#include "core/ops/fp8_crossing.h"

namespace shoestring {
namespace {

// Whether rows can be quantised one by one.
bool by_rows(const Fp8Encoding& e) { return e.tile.rows == 1; }

Fp8Tensor rows_of(const Fp8Tensor& x, int64_t begin, int64_t end) {
  if (!x) return {};
  return {x.codes.rows(begin, end), x.scales.rows(begin, end), x.encoding};
}

// All rows cross, and nothing else is done meanwhile.
Tensor crossed(Stream& stream, RowTravel* edge, bool back, const Tensor& x) {
  if (edge == nullptr) return x;
  const int64_t rows = back ? edge->rows_before(x.rows()) : edge->rows_beyond(x.rows());
  Tensor y(stream.device(), {rows, x.columns()}, x.dtype());
  back ? edge->cross_back(stream, x, y, {}) : edge->cross(stream, x, y, {});
  return y;
}

}  // namespace

Fp8Crossed fp8_cross(Stream& stream, Fp8Layer& layer, const Edges& edges, const Fp8Argument& a,
                     const Tensor& w) {
  const auto& [x, x8] = a;
  if (!edges) return {layer.forward(stream, x, x8, w), x, x8};
  const bool makes_codes = edges.in != nullptr && layer.wants_codes();
  if (!by_rows(layer.input()) || layer.probed()) {
    Fp8Crossed c;
    c.x = crossed(stream, edges.in, false, x);
    c.x8 = makes_codes ? quantise(stream, c.x, layer.input()) : x8;
    c.y = crossed(stream, edges.out, false, layer.forward(stream, c.x, c.x8, w));
    return c;
  }
  Fp8Tensor all8 = x8;
  if (makes_codes) {
    const Shape shape{edges.in->rows_beyond(x.rows()), x.columns()};
    all8 = fp8_room(stream.device(), shape, layer.input(), MemoryKind::activations);
  }
  const auto read = [&](const Tensor& all, int64_t begin, int64_t end) {
    if (makes_codes) quantise_into(stream, rows_of(all8, begin, end), all.rows(begin, end));
  };
  const auto multiply = [&](const Tensor& all, int64_t first, const Tensor& rows) {
    const int64_t end = first + rows.rows();
    layer.multiply(stream, rows, all.rows(first, end), rows_of(all8, first, end), w);
  };
  Crossed c =
      cross_linear(stream, edges, x, {.columns = w.shape()[0], .read = read, .multiply = multiply});
  return {std::move(c.result), std::move(c.argument), std::move(all8)};
}

Fp8CrossedBack fp8_cross_back(Stream& stream, Fp8Layer& layer, const Edges& edges, const Tensor& dy,
                              const Tensor& w) {
  if (!edges || !by_rows(layer.gradient()) || layer.probed()) {
    const Tensor all = crossed(stream, edges.out, true, dy);
    Fp8CrossedBack back;
    const Tensor dx = layer.input_gradient(stream, all, w, back.owed);
    back.dx = crossed(stream, edges.in, true, dx);
    return back;
  }
  Fp8Tensor all8;
  if (layer.recipe().dgrad) {
    const int64_t rows = edges.out ? edges.out->rows_before(dy.rows()) : dy.rows();
    all8 = fp8_room(stream.device(), {rows, dy.columns()}, layer.gradient(), MemoryKind::workspace);
  }
  const auto read = [&](const Tensor& all, int64_t begin, int64_t end) {
    if (all8) quantise_into(stream, rows_of(all8, begin, end), all.rows(begin, end));
  };
  const auto multiply = [&](const Tensor& all, int64_t first, const Tensor& rows) {
    const int64_t end = first + rows.rows();
    layer.multiply_gradient(stream, rows, all.rows(first, end), rows_of(all8, first, end), w);
  };
  Crossed c = cross_linear_back(stream, edges, dy,
                                {.columns = w.columns(), .read = read, .multiply = multiply});
  all8 = {};  // before the other tiling is made
  return {std::move(c.result), layer.owe(stream, c.argument, {})};
}

}  // namespace shoestring
