#pragma once
// Sums over rows whose bits do not depend on the number of threads: rows are cut into blocks whose
// size follows from the number of rows alone, each block is summed by one thread, and the blocks
// are added in order. Gradients of gains and biases are made so.

#include <cstdint>

#include "core/tensor.h"

namespace shoestring {

// Rows per block: at least 64, at most 256 blocks.
int64_t column_sum_block(int64_t rows);
int64_t column_sum_blocks(int64_t rows);

// total [width] += sum over the first dim of partials [blocks, width]: one addition to `total`, so
// that a micro-batch's own sum is formed first. partials f32 or f64, total f32 or f64.
void add_column_sums(Device& device, const Tensor& partials, const Tensor& total);

}  // namespace shoestring
