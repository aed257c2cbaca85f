#pragma once
// Tensors in 8-bit floats with a scale for each tile: value = code * scale.
//
//   amax = largest magnitude of the tile (what lies beyond the tensor's edge counts as 0)
//   plain scale         s = amax / largest               both divisions are rounded to f32
//   power of two        s = 2^ceil(log2(amax / largest))
//   code                c = round_to_nearest_even(x / s), saturated
//
// (DeepSeek-V3 report, section 3.3.2: 1 x 128 tiles of activations and of their gradients, 128 x
// 128 blocks of weights, scales made from the tensor at hand.) Scales are at least 2^-54, so that
// the product of two values of the smallest code, 2^-9, is a normal number (amax 2.5e-14 is the
// smallest that loses no digit); the report's inference code stops at amax 1e-4, which would lose
// gradients. A tile that holds an infinity or a NaN is NaN throughout, so that a run
// that diverges says so. Every element depends on its own tile alone: threads change no bit.

#include <cstdint>
#include <string_view>

#include "core/device.h"
#include "core/tensor.h"

namespace shoestring {

// Rows x columns of a tensor [R, C] that share a scale; 0 x 0: all of it.
struct Fp8Tile {
  int64_t rows = 1, columns = 128;
  bool whole() const { return rows == 0; }
  Fp8Tile transposed() const { return {columns, rows}; }
  friend bool operator==(const Fp8Tile&, const Fp8Tile&) = default;
};
enum class ScaleKind : uint8_t { plain, power_of_two };

struct Fp8Encoding {
  Dtype format = Dtype::f8e4m3;  // or f8e5m2
  Fp8Tile tile = {};
  ScaleKind scales = ScaleKind::plain;
  Fp8Encoding transposed() const { return {format, tile.transposed(), scales}; }
  friend bool operator==(const Fp8Encoding&, const Fp8Encoding&) = default;
};

struct Fp8Tensor {
  Tensor codes;   // f8e4m3 or f8e5m2, the shape of the values
  Tensor scales;  // f32 [ceil(R / rows), ceil(C / columns)]
  Fp8Encoding encoding;
  explicit operator bool() const { return static_cast<bool>(codes); }
};

inline constexpr float smallest_scale = 0x1p-54f;
float scale_of(float amax, ScaleKind kind, float largest);
// [ceil(R / rows), ceil(C / columns)] of values of this shape.
Shape shape_of_scales(const Shape& values, const Fp8Tile& tile);

// x is f32 or bf16 of any rank >= 1; its rows are all dims but the last.
Fp8Tensor quantise(Stream& stream, const Tensor& x, const Fp8Encoding& encoding,
                   MemoryKind kind = MemoryKind::activations);
// The values (in f32) quantised anew: how a stored 1 x 128 copy becomes the 128 x 1 operand of the
// weight gradient.
Fp8Tensor requantise(Stream& stream, const Fp8Tensor& x, const Fp8Encoding& encoding,
                     MemoryKind kind = MemoryKind::workspace);
// code * scale rounded to f32, then to bf16 if asked for, which is exact for powers of two.
Tensor dequantise(Stream& stream, const Fp8Tensor& x, Dtype to,
                  MemoryKind kind = MemoryKind::workspace);
// Memory for the codes and scales of values of this shape; contents undefined.
Fp8Tensor fp8_room(Device& device, const Shape& shape, const Fp8Encoding& encoding,
                   MemoryKind kind);
// quantise, requantise and dequantise into memory that exists; `out` has the encoding, and shapes
// that fit.
void quantise_into(Stream& stream, const Fp8Tensor& out, const Tensor& x);
void requantise_into(Stream& stream, const Fp8Tensor& out, const Fp8Tensor& x);
void dequantise_into(Stream& stream, const Tensor& out, const Fp8Tensor& x);
// The codes alone as bf16, which holds them exactly.
Tensor widen(Stream& stream, const Fp8Tensor& x, MemoryKind kind = MemoryKind::workspace);

}  // namespace shoestring
