#pragma once
// Tensors whose rows fall into segments (the rows or the matrices of experts), each quantised by
// itself: tiles restart at every border.

#include <vector>

#include "core/fp8/quantise.h"

namespace shoestring {

struct Fp8Segments {
  Tensor codes;   // [R, C]; rows behind the last border mean nothing
  Tensor scales;  // of the segments, one below the other
  Fp8Encoding encoding;
  std::vector<int64_t> borders;  // ascending row numbers; segment i is [borders[i], borders[i + 1])

  int64_t count() const { return static_cast<int64_t>(borders.size()) - 1; }
  Fp8Tensor segment(int64_t index) const;  // views
};

// Codes and scales without contents.
Fp8Segments make_segments(Device& device, const Shape& shape, const Fp8Encoding& encoding,
                          const std::vector<int64_t>& borders, MemoryKind kind);
Fp8Segments quantise_segments(Stream& stream, const Tensor& x, const Fp8Encoding& encoding,
                              const std::vector<int64_t>& borders,
                              MemoryKind kind = MemoryKind::workspace);
Fp8Segments requantise_segments(Stream& stream, const Fp8Segments& x, const Fp8Encoding& encoding,
                                MemoryKind kind = MemoryKind::workspace);
// Values of all segments; zeros behind the last border.
Tensor dequantise_segments(Stream& stream, const Fp8Segments& x, Dtype to,
                           MemoryKind kind = MemoryKind::workspace);

}  // namespace shoestring
