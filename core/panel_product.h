#pragma once
// A matrix product of our own for f32 and bf16. An element's value depends on its row of op(A), its
// column of op(B) and K alone, in every mode and on any number of threads (core/matmul.h).

#include "core/matmul.h"

namespace shoestring {

// As matmul() in core/matmul.h, for operands of f32 or bf16 whose sizes have been checked.
void panel_product(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                   const MatmulSpec& spec);

}  // namespace shoestring
