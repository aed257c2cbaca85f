#pragma once
// What exact mode relies on, tried out on the processor at hand.

#include <functional>

#include "core/matmul.h"

namespace shoestring {

using Product = std::function<void(Device& device, const MatrixView& c, const MatrixView& a,
                                   const MatrixView& b, const MatmulSpec& spec)>;

// True when products of f32 and bf16 in all forms give the same bits however their rows and columns
// are cut, on one thread or all of the device's, and when accumulation adds the finished product
// with one rounding. `exact` = false asks about the fast path: where it is true, exact mode costs
// nothing. Takes some milliseconds.
bool products_are_row_independent(Device& device, bool exact, const Product& product = matmul);

}  // namespace shoestring
