#include "core/fp8/packed_rows.h"

#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

void check_tile(const Fp8Encoding& encoding) {
  if (can_be_packed(encoding)) return;
  fail(cat("rows cannot be packed in tiles of ", encoding.tile.rows, " x ", encoding.tile.columns,
           ": a tile must be one row tall"));
}

// Copies between the rows of `packed` and those of codes and scales.
void copy_rows(Stream& stream, const Tensor& packed, const Fp8Tensor& apart, bool pack) {
  stream.run([&device = stream.device(), packed, apart, pack] {
    const auto codes = static_cast<size_t>(apart.codes.columns());
    const auto scales = static_cast<size_t>(apart.scales.columns()) * sizeof(float);
    auto copy = [pack](std::byte* row, std::byte* part, size_t bytes) {
      std::memcpy(pack ? row : part, pack ? part : row, bytes);
    };
    const int64_t grain = rows_a_range(packed.columns() / 4 + 1);
    parallel_for(device, packed.rows(), grain, [&](int64_t begin, int64_t end) {
      for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
        std::byte* row = packed.raw() + r * (codes + scales);
        copy(row, apart.codes.raw() + r * codes, codes);
        copy(row + codes, apart.scales.raw() + r * scales, scales);
      }
    });
  });
}

}  // namespace

int64_t packed_columns(int64_t columns, const Fp8Encoding& encoding) {
  check_tile(encoding);
  const int64_t tiles = shape_of_scales({1, columns}, encoding.tile)[1];
  return columns + tiles * static_cast<int64_t>(sizeof(float));
}

Tensor pack_rows(Stream& stream, const Tensor& x, const Fp8Encoding& encoding, MemoryKind kind) {
  Tensor packed(stream.device(), {x.rows(), packed_columns(x.columns(), encoding)}, encoding.format,
                kind);
  copy_rows(stream, packed, quantise(stream, x, encoding, MemoryKind::workspace), true);
  return packed;
}

Fp8Tensor unpack_rows(Stream& stream, const Tensor& packed, int64_t columns,
                      const Fp8Encoding& encoding, MemoryKind kind) {
  check_tensor("unpack_rows", "packed", packed, {packed.rows(), packed_columns(columns, encoding)},
               encoding.format);
  const Shape shape{packed.rows(), columns};
  const Fp8Tensor apart{
      .codes = Tensor(stream.device(), shape, encoding.format, kind),
      .scales = Tensor(stream.device(), shape_of_scales(shape, encoding.tile), Dtype::f32, kind),
      .encoding = encoding};
  copy_rows(stream, packed, apart, false);
  return apart;
}

}  // namespace shoestring
