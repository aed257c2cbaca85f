#pragma once
// What attention does with blocks of scores between its products: the softmax of a growing row
// (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax") and its gradient.

#include <cstdint>

#include "core/ops/attention_products.h"

namespace shoestring::attention {

// Row r of the block sees columns low[r] <= j < high[r]; the others get weight 0.
struct Visible {
  int64_t rows = 0;
  const int32_t* low = nullptr;
  const int32_t* high = nullptr;
};

// Lanes of a row's partial sums.
inline constexpr int64_t sum_lanes = 16;

// One block of one head's forward pass. Blocks follow one another along a row of scores.
struct SoftmaxBlock {
  Visible visible;
  float factor;   // scale * log2(e), > 0: weights are powers of two
  float* scores;  // [rows, block_keys], become weights exp2(factor * score - maximum), or undefined
  float* pairs;   // null, or [rows, block_keys / 2]: the weights as bf16 pairs (see pair_of_keys)
  float* output;  // [rows, output_columns], the rows' sums so far, scaled down when a maximum grows
  int64_t output_columns;
  // [rows], the largest factor * score so far or up to 8 less, so that it seldom moves; starts at
  // -infinity.
  float* maximum;
  float* sums;  // [rows, sum_lanes], of the weights so far, one for each lane
};
void softmax_block(const SoftmaxBlock& block);

// One block of one head's backward pass: weights P = exp2(factor * S - log_sum),
// dS = P * (dP - delta), without the scale.
struct GradientBlock {
  Visible visible;
  float factor;
  const float* log_sum;  // [rows], in units of log2
  const float* delta;    // [rows], dot product of o and dy
  float* scores;         // [rows, block_keys], replaced by P unless pairs are wanted
  float* d_weights;      // [rows, block_keys] dP, replaced by dS unless pairs are wanted
  // Null, or the bf16 pairs; an odd last row is paired with zeros.
  float* p_row_pairs = nullptr;   // [rows / 2, block_keys]: rows 2i and 2i + 1
  float* ds_row_pairs = nullptr;  // the same
  float* ds_key_pairs = nullptr;  // [rows, block_keys / 2], see pair_of_keys
};
void gradient_block(const GradientBlock& block);

// Which two columns of a block stand in word w of a row of bf16 pairs: w's group of 32 columns, its
// first half low, its second half high, so that two vectors make one without a shuffle.
inline constexpr int64_t first_of_pair(int64_t w) { return w / 16 * 32 + w % 16; }
inline constexpr int64_t second_of_pair(int64_t w) { return first_of_pair(w) + 16; }

}  // namespace shoestring::attention
