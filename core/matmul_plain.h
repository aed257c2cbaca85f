#pragma once
// The plain product: the definition in loops, for f64 and for checking the fast ones.

#include <cstdint>

#include "core/matmul.h"
#include "core/parallel_for.h"

namespace shoestring {

// T is the type of the operands, C of the result, Sum of the sums. Terms are added in the order of
// k, so that an element depends on its row, its column and K alone.
template <class T, class C, class Sum>
void matmul_plain(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                  const MatmulSpec& spec) {
  const T* a_data = reinterpret_cast<const T*>(a.data);
  const T* b_data = reinterpret_cast<const T*>(b.data);
  const int64_t inner = spec.transpose_a ? a.rows : a.columns;
  const int64_t a_row = spec.transpose_a ? 1 : a.stride, a_step = spec.transpose_a ? a.stride : 1;
  const int64_t b_column = spec.transpose_b ? b.stride : 1;
  const int64_t b_step = spec.transpose_b ? 1 : b.stride;
  parallel_for(device, c.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      C* out = reinterpret_cast<C*>(c.data) + i * c.stride;
      for (int64_t j = 0; j < c.columns; ++j) {
        Sum sum = 0;
        for (int64_t k = 0; k < inner; ++k) {
          sum += static_cast<Sum>(a_data[i * a_row + k * a_step]) *
                 static_cast<Sum>(b_data[j * b_column + k * b_step]);
        }
        sum *= static_cast<Sum>(spec.alpha);
        out[j] = static_cast<C>(spec.accumulate ? static_cast<Sum>(out[j]) + sum : sum);
      }
    }
  });
}

}  // namespace shoestring
