#include "core/fp8/segments.h"

#include <cstring>

namespace shoestring {
namespace {

int64_t scale_rows(int64_t rows, const Fp8Tile& tile) {
  if (rows == 0) return 0;
  return tile.whole() ? 1 : (rows + tile.rows - 1) / tile.rows;
}

}  // namespace

Fp8Tensor Fp8Segments::segment(int64_t index) const {
  const auto i = static_cast<size_t>(index);
  int64_t before = 0;
  for (size_t s = 0; s < i; ++s) before += scale_rows(borders[s + 1] - borders[s], encoding.tile);
  const int64_t here = scale_rows(borders[i + 1] - borders[i], encoding.tile);
  return {.codes = codes.rows(borders[i], borders[i + 1]),
          .scales = scales.rows(before, before + here),
          .encoding = encoding};
}

Fp8Segments make_segments(Device& device, const Shape& shape, const Fp8Encoding& encoding,
                          const std::vector<int64_t>& borders, MemoryKind kind) {
  int64_t rows = 0;
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    rows += scale_rows(borders[i + 1] - borders[i], encoding.tile);
  }
  const int64_t across = shape_of_scales({1, shape.columns()}, encoding.tile)[1];
  return {.codes = Tensor(device, shape, encoding.format, kind),
          .scales = Tensor(device, {rows, across}, Dtype::f32, kind),
          .encoding = encoding,
          .borders = borders};
}

Fp8Segments quantise_segments(Stream& stream, const Tensor& x, const Fp8Encoding& encoding,
                              const std::vector<int64_t>& borders, MemoryKind kind) {
  Fp8Segments out = make_segments(stream.device(), x.shape(), encoding, borders, kind);
  for (int64_t i = 0; i < out.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (borders[at] == borders[at + 1]) continue;
    quantise_into(stream, out.segment(i), x.rows(borders[at], borders[at + 1]));
  }
  return out;
}

Fp8Segments requantise_segments(Stream& stream, const Fp8Segments& x, const Fp8Encoding& encoding,
                                MemoryKind kind) {
  Fp8Segments out = make_segments(stream.device(), x.codes.shape(), encoding, x.borders, kind);
  for (int64_t i = 0; i < out.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (x.borders[at] == x.borders[at + 1]) continue;
    requantise_into(stream, out.segment(i), x.segment(i));
  }
  return out;
}

Tensor dequantise_segments(Stream& stream, const Fp8Segments& x, Dtype to, MemoryKind kind) {
  Tensor out(stream.device(), x.codes.shape(), to, kind);
  for (int64_t i = 0; i < x.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (x.borders[at] == x.borders[at + 1]) continue;
    dequantise_into(stream, out.rows(x.borders[at], x.borders[at + 1]), x.segment(i));
  }
  stream.run([rest = out.rows(x.borders.back(), out.rows())] {
    std::memset(rest.raw(), 0, rest.bytes());
  });
  return out;
}

}  // namespace shoestring
