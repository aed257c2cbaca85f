#pragma once
// Passes over one row of logits z [n], f32: what core/ops/head_loss.h is made of.

#include <cstdint>

#include "core/dtype.h"

namespace shoestring {

// Columns that share one maximum, the same in every instruction set.
inline constexpr int64_t logit_block = 1024;

// log sum_v e^z_v and, in `largest`, the largest. With `maxima` (one a block) e^(z - the largest so
// far) replaces z, for the gradient.
double log_sum_exp_of_row(float* z, int64_t n, float* maxima, float* largest);

// The index of the largest, the first of equal ones; NaN never is the largest.
int64_t first_largest_of_row(const float* z, int64_t n);

// dz = factor * e. dz may start where e starts: its type is no wider.
void scale_row(const float* e, int64_t n, float factor, float* dz);
void scale_row(const float* e, int64_t n, float factor, BFloat16* dz);

}  // namespace shoestring
