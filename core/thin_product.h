#pragma once
// Products of a few vectors with a matrix in memory, as generation makes them: every element of the
// matrix is read once, and reading is what takes the time. Sums are f32 (f64 for f64). An element
// of a result depends on its own vector and row alone, whatever the others are.

#include <cstdint>

#include "core/matmul.h"

namespace shoestring {

// Rows of `columns` elements, `stride` elements apart.
template <class T>
struct MatrixRows {
  const T* data;
  int64_t rows, columns, stride;
};

// `count` vectors, `stride` elements apart.
template <class S>
struct Vectors {
  S* data;
  int64_t count, stride;
};

// y[j][r] = sum over i of x[j][i] * m[r][i]. On the calling thread.
void dot_rows(const MatrixRows<float>& m, const Vectors<const float>& x, const Vectors<float>& y);
void dot_rows(const MatrixRows<BFloat16>& m, const Vectors<const float>& x,
              const Vectors<float>& y);
void dot_rows(const MatrixRows<double>& m, const Vectors<const double>& x,
              const Vectors<double>& y);

// y[j][i] = sum over r of w[j][r] * m[r][i], in order of r. On the calling thread.
void sum_rows(const MatrixRows<float>& m, const Vectors<const float>& w, const Vectors<float>& y);
void sum_rows(const MatrixRows<BFloat16>& m, const Vectors<const float>& w,
              const Vectors<float>& y);
void sum_rows(const MatrixRows<double>& m, const Vectors<const double>& w,
              const Vectors<double>& y);

// What thin_product takes: f32 or bf16 A [M, K] with few rows, times the transpose of B [N, K],
// whose rows lie in one piece; not accumulated.
bool is_thin(const MatrixView& c, const MatrixView& a, const MatmulSpec& spec);

// As matmul() in core/matmul.h for such operands, whose sizes have been checked.
void thin_product(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                  const MatmulSpec& spec);

}  // namespace shoestring
