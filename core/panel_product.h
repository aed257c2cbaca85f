#pragma once
// A matrix product of our own for f32 and bf16. An element's value depends on its row of op(A), its
// column of op(B) and K alone, in every mode and on any number of threads (core/matmul.h).

#include "core/matmul.h"

namespace shoestring {

// As matmul() in core/matmul.h, for operands of f32 or bf16 whose sizes have been checked.
void panel_product(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                   const MatmulSpec& spec);

// Bytes of workspace that it takes at its worst moment, all threads of the device together: packed
// operands and the sums of tiles.
struct PanelSizes {
  int64_t rows = 0, columns = 0, depth = 0;  // of C, and K
};
int64_t panel_product_bytes(const Device& device, const PanelSizes& sizes, Dtype operand);

// The same in chunks of k: each chunk's sum is made by itself, multiplied by
// (rows[chunk, i] * columns[chunk, j]), both products rounded to f32, and added to the element's
// total in the order of k. Without scales the sums are only added.
struct ChunkScales {
  int64_t depth = 128;  // k a chunk: 16, 32, 64, 128, 256 or 512
  const float* rows = nullptr;
  int64_t rows_stride = 0;         // between chunks
  const float* columns = nullptr;  // readable up to the next multiple of 64 columns
  int64_t columns_stride = 0;
};
struct ChunkedProduct {
  MatrixView c, a, b;
  MatmulSpec spec;
  ChunkScales scales;
};
void chunked_panel_product(Device& device, const ChunkedProduct& product);

}  // namespace shoestring
