#pragma once
// Matrix products, the work that decides the speed of training:
//
//   C[M, N] = alpha * op(A)[M, K] op(B)[K, N]  (+ C when accumulating),  op = identity or transpose
//
//   A, B            C                        inside
//   f32             f32                      f32
//   bf16            bf16 (no accumulation)   f32 sums, one rounding at the end
//   bf16            f32                      f32
//   f64             f64                      f64, plain loops: the oracle of tests
//
// Matrices are row-major with any row stride, so slices of columns (fused projections, heads of
// attention) are products' operands without a copy. C must not overlap A or B.
//
// Results never depend on the number of threads. In exact mode an element depends only on its row
// of op(A), its column of op(B) and K: not on M and N, not on its place in the matrix, and
// accumulation adds the finished product to C with one rounding.
//
// Inside a parallel region (parallel_for) a product runs on the calling thread alone.

#include <cstddef>
#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "core/tensor.h"

namespace shoestring {

// A matrix in somebody's memory: row i starts `stride` elements after row i - 1.
struct MatrixView {
  std::byte* data = nullptr;
  Dtype dtype = Dtype::f32;
  int64_t rows = 0, columns = 0, stride = 0;

  MatrixView() = default;
  MatrixView(std::byte* data, Dtype dtype, int64_t rows, int64_t columns, int64_t stride)
      : data(data), dtype(dtype), rows(rows), columns(columns), stride(stride) {}
  // All dims but the last are rows; a one-dimensional tensor is one row.
  MatrixView(const Tensor& tensor);
  template <class T>
  static MatrixView of(T* data, int64_t rows, int64_t columns, int64_t stride) {
    return {reinterpret_cast<std::byte*>(data), dtype_of<T>, rows, columns, stride};
  }
  MatrixView slice_rows(int64_t begin, int64_t end) const;
  MatrixView slice_columns(int64_t begin, int64_t end) const;
};

// Who multiplies f32 and bf16: what is faster here, or one of the two, to compare them.
enum class ProductLibrary : uint8_t { fastest, own, onednn };

struct MatmulSpec {
  bool transpose_a = false;  // A is stored as [K, M]
  bool transpose_b = false;  // B is stored as [N, K]
  bool accumulate = false;   // C += instead of C =
  bool exact = false;        // see above
  double alpha = 1.0;
  ProductLibrary library = ProductLibrary::fastest;  // exact mode is always our own
};

// oneDNN has no bf16 below AVX-512.
bool onednn_multiplies(Dtype operand);

// Wrong sizes or types are errors that name both operands' shapes.
void matmul(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
            const MatmulSpec& spec = {});

}  // namespace shoestring
