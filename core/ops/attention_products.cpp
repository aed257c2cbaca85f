#include "core/ops/attention_products.h"

#include <algorithm>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/attention_products.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <size_t rows, size_t vectors>
void multiply_tile(const Tile& tile) {
  const Tile t = tile;  // a copy, which stores to c cannot alias
  const hn::ScalableTag<float> d;
  constexpr size_t lanes = hn::MaxLanes(d);
  hn::Vec<decltype(d)> sum[rows][vectors];
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) {
      sum[r][v] = t.accumulate ? hn::LoadU(d, t.c + r * t.c_row + v * lanes) : hn::Zero(d);
    }
  }
  const float* a = t.a;
  const float* b = t.b;
  for (int64_t k = 0; k < t.steps; ++k, a += t.a_step, b += t.b_step) {
    hn::Vec<decltype(d)> row_of_b[vectors];
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) row_of_b[v] = hn::LoadU(d, b + v * lanes);
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; ++r) {
      const auto x = hn::Set(d, a[r * t.a_row]);
#pragma GCC unroll 4
      for (size_t v = 0; v < vectors; ++v) sum[r][v] = hn::MulAdd(x, row_of_b[v], sum[r][v]);
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v) {
      hn::StoreU(sum[r][v], d, t.c + r * t.c_row + v * lanes);
    }
  }
}

template <size_t rows, size_t... v>
void fill_row(TileKernels& kernels, std::index_sequence<v...>) {
  ((kernels.kernel[rows][v + 1] = multiply_tile<rows, v + 1>), ...);
}
template <size_t vectors, size_t... r>
TileKernels all_tiles(std::index_sequence<r...>) {
  TileKernels kernels{};
  kernels.lanes = hn::MaxLanes(hn::ScalableTag<float>());
  kernels.rows = sizeof...(r);
  kernels.vectors = vectors;
  (fill_row<r + 1>(kernels, std::make_index_sequence<vectors>()), ...);
  return kernels;
}

void multiply(const Product& product) {
  // 6 x 4 sums of 32 registers, or 6 x 2 of 16.
  constexpr size_t vectors = hn::MaxLanes(hn::ScalableTag<float>()) >= 16 ? 4 : 2;
  static const TileKernels kernels = all_tiles<vectors>(std::make_index_sequence<6>());
  multiply_tiles(product, kernels);
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention {

HWY_EXPORT(multiply);
void multiply_f32(const Product& product) { HWY_DYNAMIC_DISPATCH(multiply)(product); }

void multiply_tiles(const Product& p, const TileKernels& kernels) {
  const int64_t lanes = kernels.lanes, width = lanes * kernels.vectors;
  for (int64_t column = 0; column < p.columns; column += width) {
    const int64_t column_end = std::min(column + width, p.columns);
    for (int64_t row = 0; row < p.rows; row += kernels.rows) {
      const int64_t rows = std::min(kernels.rows, p.rows - row);
      int64_t from = column, to = column_end, step = 0, step_end = p.steps;
      if (p.limit == Limit::columns) {
        from = std::max<int64_t>(from, p.begin[row] / lanes * lanes);
        to = std::min(to, (p.end[row + rows - 1] + lanes - 1) / lanes * lanes);
        if (from >= to) continue;
      } else if (p.limit == Limit::steps) {
        step = p.begin[row];
        step_end = p.end[row + rows - 1];
        if (step >= step_end && p.accumulate) continue;
      }
      const Tile tile = {.a = p.a + row * p.a_row + step * p.a_step,
                         .a_row = p.a_row,
                         .a_step = p.a_step,
                         .b = p.b + step * p.b_step + from,
                         .b_step = p.b_step,
                         .c = p.c + row * p.c_row + from,
                         .c_row = p.c_row,
                         .steps = step_end - step,
                         .accumulate = p.accumulate};
      kernels.kernel[rows][(to - from) / lanes](tile);
    }
  }
}

}  // namespace shoestring::attention
#endif
