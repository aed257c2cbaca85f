#pragma once
// The `exact` accumulator of core/fp8/product.h: each chunk's sum in f64, rounded once to f32.
// With E4M3 on both sides a sum of up to 2^10 products is exact in f64 (8 bits times 2^-18 to
// 2^17), so its order does not matter; with E5M2 it is made in the order of k.

#include "core/fp8/product.h"

namespace shoestring {

void exact_chunks(const ChunkProblem& problem);

}  // namespace shoestring
