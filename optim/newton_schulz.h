#pragma once
// Orthogonalisation of a matrix by Newton-Schulz iteration, Muon's heart.

#include <cstdint>
#include <span>

#include "core/device.h"
#include "core/dtype.h"

namespace shoestring {

// Moves the singular values of `matrix` (row-major, overwritten) into about 0.5..1.5 and keeps its
// singular vectors: `steps` times X <- a X + (b A + c A A) X with A = X X^T, on X / (|X| + 1e-7).
// (a, b, c) = (3.4445, -4.7750, 2.0315), the steepest start that stays in this band (Jordan 2024).
// `products`: f32, or bf16 operands with f32 sums. A tall matrix is worked on transposed.
void newton_schulz(Device& device, std::span<float> matrix, int64_t rows, int64_t steps,
                   Dtype products);

}  // namespace shoestring
