#include "optim/newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/matmul.h"
#include "core/parallel_for.h"
#include "core/tensor.h"

namespace shoestring {
namespace {

constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
constexpr int64_t grain = 16384;  // elements of one thread's piece

Tensor workspace(Device& device, int64_t rows, int64_t columns, Dtype dtype = Dtype::f32) {
  return Tensor(device, {rows, columns}, dtype, MemoryKind::workspace);
}

void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  constexpr int64_t tile = 32;  // keeps both sides in the cache
  for (int64_t i0 = 0; i0 < rows; i0 += tile) {
    for (int64_t j0 = 0; j0 < columns; j0 += tile) {
      for (int64_t i = i0; i < std::min(rows, i0 + tile); ++i) {
        for (int64_t j = j0; j < std::min(columns, j0 + tile); ++j) {
          to[j * rows + i] = from[i * columns + j];
        }
      }
    }
  }
}

// Sums row by row in f64, so that threads cannot change the result.
double frobenius(Device& device, const Tensor& x) {
  const float* values = x.data<float>();
  const int64_t columns = x.columns();
  std::vector<double> sums(static_cast<size_t>(x.rows()));
  parallel_for(device, x.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const double value = values[i * columns + j];
        sum += value * value;
      }
      sums[static_cast<size_t>(i)] = sum;
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return std::sqrt(total);
}

// y = scale * x (+ y)
void scaled(Device& device, const Tensor& x, float scale, bool add, const Tensor& y) {
  const float* from = x.data<float>();
  float* to = y.data<float>();
  parallel_for(device, x.elements(), grain, [&](int64_t begin, int64_t end) {
    if (add) {
      for (int64_t i = begin; i < end; ++i) to[i] += scale * from[i];
    } else {
      for (int64_t i = begin; i < end; ++i) to[i] = scale * from[i];
    }
  });
}

// The operand of a product: x itself, or its bf16 copy in `narrow`.
const Tensor& operand(Device& device, const Tensor& x, const Tensor& narrow) {
  if (!narrow) return x;
  const float* from = x.data<float>();
  BFloat16* to = narrow.data<BFloat16>();
  parallel_for(device, x.elements(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = BFloat16(from[i]);
  });
  return narrow;
}

// x is [rows, columns] with rows <= columns and norm 1; `next` is as large. The result is in x.
void iterate(Device& device, Tensor& x, Tensor& next, int64_t steps, Dtype products) {
  const int64_t rows = x.rows(), columns = x.columns();
  const Tensor gram = workspace(device, rows, rows), polynomial = workspace(device, rows, rows);
  Tensor narrow_x, narrow_square;
  if (products == Dtype::bf16) {
    narrow_x = workspace(device, rows, columns, Dtype::bf16);
    narrow_square = workspace(device, rows, rows, Dtype::bf16);
  }
  for (int64_t i = 0; i < steps; ++i) {
    const Tensor& x_operand = operand(device, x, narrow_x);
    matmul(device, gram, x_operand, x_operand, {.transpose_b = true});
    const Tensor& gram_operand = operand(device, gram, narrow_square);
    matmul(device, polynomial, gram_operand, gram_operand, {.alpha = c});
    scaled(device, gram, static_cast<float>(b), true, polynomial);
    scaled(device, x, static_cast<float>(a), false, next);
    matmul(device, next, operand(device, polynomial, narrow_square), x_operand,
           {.accumulate = true});
    std::swap(x, next);
  }
}

}  // namespace

void newton_schulz(Device& device, std::span<float> matrix, int64_t rows, int64_t steps,
                   Dtype products) {
  const int64_t elements = static_cast<int64_t>(matrix.size());
  check(rows > 0 && elements > 0 && elements % rows == 0, "newton_schulz: the matrix has no shape");
  check(products == Dtype::f32 || products == Dtype::bf16,
        "newton_schulz: products are f32 or bf16");
  const int64_t columns = elements / rows;
  const bool tall = rows > columns;
  Tensor x = workspace(device, std::min(rows, columns), std::max(rows, columns));
  Tensor next = workspace(device, x.rows(), x.columns());
  float* values = x.data<float>();
  if (tall) {
    transpose(matrix.data(), rows, columns, values);
  } else {
    std::copy(matrix.begin(), matrix.end(), values);
  }
  scaled(device, x, static_cast<float>(1 / (frobenius(device, x) + 1e-7)), false, x);
  iterate(device, x, next, steps, products);
  if (tall) {
    transpose(x.data<float>(), columns, rows, matrix.data());
  } else {
    std::copy_n(x.data<float>(), elements, matrix.begin());
  }
}

}  // namespace shoestring
