#include "core/ops/column_sums.h"

#include <algorithm>

#include "core/parallel_for.h"

namespace shoestring {
namespace {

constexpr int64_t min_rows = 64, max_blocks = 256, column_grain = 64;

template <class P, class T>
void add_columns(Device& device, const Tensor& partials, const Tensor& total) {
  const int64_t blocks = partials.rows(), width = partials.columns();
  const P* from = partials.data<P>();
  T* to = total.data<T>();
  const int64_t grain = column_grain * rows_a_range(column_grain * blocks);
  parallel_for(device, width, grain, [&](int64_t begin, int64_t end) {
    for (int64_t left = begin; left < end; left += column_grain) {
      const int64_t right = std::min(left + column_grain, end);
      P sums[column_grain] = {};
      for (int64_t b = 0; b < blocks; ++b) {
        for (int64_t c = left; c < right; ++c) sums[c - left] += from[b * width + c];
      }
      for (int64_t c = left; c < right; ++c) to[c] = static_cast<T>(to[c] + sums[c - left]);
    }
  });
}

}  // namespace

int64_t column_sum_block(int64_t rows) {
  return std::max(min_rows, (rows + max_blocks - 1) / max_blocks);
}

int64_t column_sum_blocks(int64_t rows) {
  const int64_t block = column_sum_block(rows);
  return (rows + block - 1) / block;
}

void add_column_sums(Device& device, const Tensor& partials, const Tensor& total) {
  check_tensor("column_sums", "total", total, {partials.columns()}, total.dtype());
  if (partials.dtype() == Dtype::f32) return add_columns<float, float>(device, partials, total);
  if (total.dtype() == Dtype::f64) return add_columns<double, double>(device, partials, total);
  add_columns<double, float>(device, partials, total);
}

}  // namespace shoestring
