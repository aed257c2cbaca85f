#pragma once
// Rows in FP8 as they travel between ranks: each row's codes and, right behind them, the bytes of
// its scales, so that a row is one piece of memory whose move changes no number. Only encodings
// whose tiles are one row tall can be packed. A packed tensor [R, packed_columns(C)] has the type
// of its codes; elements are bytes.

#include "core/fp8/quantise.h"

namespace shoestring {

// C + 4 ceil(C / columns of a tile): the bytes of a packed row.
int64_t packed_columns(int64_t columns, const Fp8Encoding& encoding);
inline bool can_be_packed(const Fp8Encoding& encoding) { return encoding.tile.rows == 1; }
// Rows that experts are given have an 8-bit float type only when they are packed.
inline bool is_packed(const Tensor& x) {
  return x.dtype() == Dtype::f8e4m3 || x.dtype() == Dtype::f8e5m2;
}

// x [R, C], f32 or bf16.
Tensor pack_rows(Stream& stream, const Tensor& x, const Fp8Encoding& encoding,
                 MemoryKind kind = MemoryKind::workspace);
// Codes and scales of a packed tensor whose values have `columns` columns.
Fp8Tensor unpack_rows(Stream& stream, const Tensor& packed, int64_t columns,
                      const Fp8Encoding& encoding, MemoryKind kind = MemoryKind::activations);

}  // namespace shoestring
