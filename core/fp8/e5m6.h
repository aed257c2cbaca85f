#pragma once
// Tensors in 12-bit floats, E5M6, two in three bytes, with a power of two for each 1 x 128 tile:
// how the input of the product behind attention is kept (DeepSeek-V3 report, section 3.3.3). Seven
// significant bits and a power of two fit bf16, so a stored tensor reads back as bf16 exactly what
// was stored.

#include "core/device.h"
#include "core/tensor.h"

namespace shoestring {

struct E5M6Tensor {
  Tensor codes;   // u8 [R, bytes of a row]
  Tensor scales;  // f32 [R, ceil(C / 128)]
};

// Of x [.., C], f32 or bf16. Rounds to nearest even; scales as in core/fp8/quantise.h.
E5M6Tensor store_e5m6(Stream& stream, const Tensor& x, MemoryKind kind = MemoryKind::activations);
// Values [R, columns].
Tensor load_e5m6(Stream& stream, const E5M6Tensor& x, int64_t columns, Dtype to,
                 MemoryKind kind = MemoryKind::workspace);

}  // namespace shoestring
