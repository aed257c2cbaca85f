// Products of bf16 pairs with AVX512-BF16, whose instruction Highway 1.0 does not offer.
#include <immintrin.h>

#include <utility>

#include "core/panel_kernels.h"

namespace shoestring {
namespace {

// 14 x 2 sums of 16 lanes leave four of the 32 registers for two columns of B and the broadcasts.
// The instruction adds the products of a pair one after the other, each rounded to f32.
template <int rows, bool scaled>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))) void multiply_pairs(
    const PanelPair& p) {
  constexpr int width = 32, half = 16, ahead = 8 * width;
  __m512 sums[rows][2];
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  const float* a = p.a;
  const float* b = p.b;
  for (int64_t u = 0; u < p.units; ++u, a += rows, b += width) {
    const auto b0 = reinterpret_cast<__m512bh>(_mm512_loadu_ps(b));
    const auto b1 = reinterpret_cast<__m512bh>(_mm512_loadu_ps(b + half));
    _mm_prefetch(reinterpret_cast<const char*>(b + ahead), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(b + ahead + half), _MM_HINT_T0);
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
      const auto x = reinterpret_cast<__m512bh>(_mm512_set1_ps(a[i]));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, b0);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, b1);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) {
    float* c = p.c + i * p.stride;
    if constexpr (scaled) {
      const __m512 row = _mm512_set1_ps(p.row_scales[i]);
      const __m512 s0 = _mm512_mul_ps(row, _mm512_loadu_ps(p.column_scales));
      const __m512 s1 = _mm512_mul_ps(row, _mm512_loadu_ps(p.column_scales + half));
      sums[i][0] = _mm512_mul_ps(sums[i][0], s0);
      sums[i][1] = _mm512_mul_ps(sums[i][1], s1);
    }
    if (p.add) {
      sums[i][0] = _mm512_add_ps(_mm512_loadu_ps(c), sums[i][0]);
      sums[i][1] = _mm512_add_ps(_mm512_loadu_ps(c + half), sums[i][1]);
    }
    _mm512_storeu_ps(c, sums[i][0]);
    _mm512_storeu_ps(c + half, sums[i][1]);
  }
}

template <int... i>
void fill_table(PanelKernels& kernels, std::integer_sequence<int, i...>) {
  ((kernels.multiply[i + 1] = multiply_pairs<i + 1, false>), ...);
  ((kernels.multiply_scaled[i + 1] = multiply_pairs<i + 1, true>), ...);
}

}  // namespace

void use_bf16_pairs(PanelKernels& kernels) {
  kernels.rows = most_panel_rows;
  kernels.columns = 32;
  kernels.k_per_unit = 2;
  fill_table(kernels, std::make_integer_sequence<int, most_panel_rows>());
}

}  // namespace shoestring
