#pragma once
// The arithmetic of reductions: folds in rank order, the same code for every back end.

#include <span>

#include "parallel/communicator.h"

namespace shoestring {

// out[i] = in[0][i] (+) in[1][i] (+) ... in that order, in the accumulator type of communicator.h.
// All inputs have out's count and dtype; `out` may be one of them.
void fold(std::span<const View> inputs, Buffer out, Reduce reduce);

// acc[i] = acc[i] + x[i], one f32 rounding each: a step of exact mode's sequential sum.
void add_into(std::span<float> acc, std::span<const float> x);

}  // namespace shoestring
