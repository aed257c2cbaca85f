#pragma once
// Values of files in the type that a reader wants.

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace shoestring {

// Writes `count` elements of type `stored` as `to`: the same type (copied), or any float type as
// f32 or bf16 (rounded to nearest even). Other pairs fail. Neither side needs to be aligned.
void convert_elements(const std::byte* from, Dtype stored, int64_t count, Dtype to, std::byte* out);

}  // namespace shoestring
