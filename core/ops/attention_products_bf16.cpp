// The bf16 dot products of AVX512_BF16, which this Highway version does not know. One target per
// function, so that nothing else of this file needs more than the build's instruction set.
#include <immintrin.h>

#include <utility>

#include "core/ops/attention_products.h"

namespace shoestring::attention {
namespace {

// vdpbf16ps adds the products of the two pairs to an f32 lane (denormals count as zero).
template <size_t rows, size_t vectors>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))) void multiply_pairs(
    const Tile& tile) {
  const Tile t = tile;  // a copy, which stores to c cannot alias
  __m512 sum[rows][vectors];
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) {
      sum[r][v] = t.accumulate ? _mm512_loadu_ps(t.c + r * t.c_row + v * 16) : _mm512_setzero_ps();
    }
  }
  const float* a = t.a;
  const float* b = t.b;
  for (int64_t k = 0; k < t.steps; ++k, a += t.a_step, b += t.b_step) {
    __m512bh row_of_b[vectors];
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) row_of_b[v] = (__m512bh)_mm512_loadu_ps(b + v * 16);
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; ++r) {
      const __m512bh x = (__m512bh)_mm512_set1_ps(a[r * t.a_row]);
#pragma GCC unroll 4
      for (size_t v = 0; v < vectors; ++v) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, row_of_b[v]);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) _mm512_storeu_ps(t.c + r * t.c_row + v * 16, sum[r][v]);
  }
}

template <size_t rows, size_t... v>
void fill_row(TileKernels& kernels, std::index_sequence<v...>) {
  ((kernels.kernel[rows][v + 1] = multiply_pairs<rows, v + 1>), ...);
}
template <size_t... r>
TileKernels all_tiles(std::index_sequence<r...>) {
  TileKernels kernels{};
  kernels.lanes = 16;
  kernels.rows = sizeof...(r);
  kernels.vectors = most_tile_vectors;
  (fill_row<r + 1>(kernels, std::make_index_sequence<most_tile_vectors>()), ...);
  return kernels;
}

}  // namespace

void multiply_bf16(const Product& product) {
  static const TileKernels kernels = all_tiles(std::make_index_sequence<most_tile_rows>());
  multiply_tiles(product, kernels);
}

}  // namespace shoestring::attention
