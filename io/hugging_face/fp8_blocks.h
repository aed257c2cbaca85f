#pragma once
// FP8 matrices of published checkpoints: E4M3 codes and one f32 scale a block of 128 x 128, which
// multiplies although its name is weight_scale_inv (DeepSeek-V3, README_WEIGHTS). Blocks at the
// right and lower edge are cut.

#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "io/hugging_face/config.h"

namespace shoestring {

struct Fp8Layout {
  int64_t rows = 0, columns = 0;
  Fp8Blocks blocks = {};

  int64_t scale_rows() const { return (rows + blocks.rows - 1) / blocks.rows; }
  int64_t scale_columns() const { return (columns + blocks.columns - 1) / blocks.columns; }
};

// Elements [begin, begin + codes.size()) of the matrix, times their blocks' scales, in f32.
void dequantise_blocks(const Fp8Layout& layout, std::span<const uint8_t> codes,
                       std::span<const float> scales, int64_t begin, float* out);

// The blocks' scales are the largest magnitude / 448, at least the smallest normal number (1 for a
// block of zeros), codes the nearest values, ties to even. `values` are finite, whole rows from the
// first of a block on; scales of their blocks are appended.
void quantise_blocks(const Fp8Layout& layout, std::span<const float> values,
                     std::vector<uint8_t>& codes, std::vector<float>& scales);

// The same of values that came from codes: the smallest scale that gives every value of the block
// back exactly. In a block of many values that is the one they came with, if the largest code was
// above 224, as the usual rules make it (the largest magnitude / 448, or the power of two above
// that). Where no scale does, that of quantise_blocks.
void requantise_blocks(const Fp8Layout& layout, std::span<const float> values,
                       std::vector<uint8_t>& codes, std::vector<float>& scales);

}  // namespace shoestring
