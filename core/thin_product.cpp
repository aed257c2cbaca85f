#include "core/thin_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel_for.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/thin_product.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// Vectors of sums that stay in registers.
constexpr size_t most_sums = hn::MaxLanes(F32()) >= 16 ? 16 : 8;

// sums[h] += the products of columns i on, lane by lane.
template <size_t vectors, class T, class Lanes>
HWY_INLINE void add_products(const T* row, const Vectors<const float>& x, int64_t i, Lanes lanes,
                             Floats (&sums)[vectors]) {
  const Floats here = load(row + i, lanes);
#pragma GCC unroll 4
  for (size_t h = 0; h < vectors; ++h) {
    const float* v = x.data + static_cast<int64_t>(h) * x.stride + i;
    sums[h] = hn::MulAdd(here, load(v, lanes), sums[h]);
  }
}

// Even and odd vectors of lanes are summed apart, for any number of vectors.
template <size_t vectors, class T>
HWY_INLINE void dot_row(const T* row, int64_t n, const Vectors<const float>& x,
                        const Vectors<float>& y) {
  Floats even[vectors], odd[vectors];
#pragma GCC unroll 4
  for (size_t h = 0; h < vectors; ++h) even[h] = odd[h] = hn::Zero(F32());
  const int64_t lanes = lane_count();
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    add_products<vectors>(row, x, i, AllLanes{}, even);
    add_products<vectors>(row, x, i + lanes, AllLanes{}, odd);
  }
  if (i + lanes <= n) {
    add_products<vectors>(row, x, i, AllLanes{}, even);
    i += lanes;
  }
  if (i < n) add_products<vectors>(row, x, i, FirstLanes{n - i}, odd);
#pragma GCC unroll 4
  for (size_t h = 0; h < vectors; ++h) {
    y.data[static_cast<int64_t>(h) * y.stride] = sum(hn::Add(even[h], odd[h]));
  }
}

// x.count vectors, at most as many as `vectors`. Row by row: a single stream of memory is what the
// processor reads ahead best (measured: twice as fast as four rows at a time).
template <size_t vectors, class T>
HWY_INLINE void dots_of(const MatrixRows<T>& m, const Vectors<const float>& x,
                        const Vectors<float>& y) {
  if constexpr (vectors > 1) {
    if (x.count < static_cast<int64_t>(vectors)) return dots_of<vectors - 1>(m, x, y);
  }
  for (int64_t r = 0; r < m.rows; ++r) {
    dot_row<vectors>(m.data + r * m.stride, m.columns, x, {y.data + r, y.count, y.stride});
  }
}

// Columns [0, chunk vectors of lanes) of y, or those of `lanes` when chunk is 1.
template <size_t vectors, size_t chunk, class T, class Lanes>
HWY_INLINE void sum_tile(const MatrixRows<T>& m, const Vectors<const float>& w,
                         const Vectors<float>& y, Lanes lanes) {
  Floats sums[vectors][chunk];
#pragma GCC unroll 4
  for (size_t h = 0; h < vectors; ++h) {
#pragma GCC unroll 8
    for (size_t c = 0; c < chunk; ++c) sums[h][c] = hn::Zero(F32());
  }
  const auto width = static_cast<size_t>(lane_count());
  for (int64_t r = 0; r < m.rows; ++r) {
    const T* row = m.data + r * m.stride;
    Floats here[chunk];
#pragma GCC unroll 8
    for (size_t c = 0; c < chunk; ++c) here[c] = load(row + c * width, lanes);
#pragma GCC unroll 4
    for (size_t h = 0; h < vectors; ++h) {
      const Floats weight = set(w.data[static_cast<int64_t>(h) * w.stride + r]);
#pragma GCC unroll 8
      for (size_t c = 0; c < chunk; ++c) sums[h][c] = hn::MulAdd(weight, here[c], sums[h][c]);
    }
  }
  for (size_t h = 0; h < vectors; ++h) {
    for (size_t c = 0; c < chunk; ++c) {
      store(sums[h][c], y.data + h * static_cast<size_t>(y.stride) + c * width, lanes);
    }
  }
}

// y += w row, from y in the first cache: where rows are too many to be read piece by piece.
template <size_t vectors, class T, class Lanes>
HWY_INLINE void add_row(const T* row, const Vectors<const float>& w, const Vectors<float>& y,
                        Lanes lanes) {
  const Floats here = load(row, lanes);
#pragma GCC unroll 4
  for (size_t h = 0; h < vectors; ++h) {
    float* to = y.data + static_cast<int64_t>(h) * y.stride;
    const Floats weight = set(w.data[static_cast<int64_t>(h) * w.stride]);
    store(hn::MulAdd(weight, here, load(to, lanes)), to, lanes);
  }
}

// w.count vectors, at most as many as `vectors`.
template <size_t vectors, class T>
HWY_INLINE void sums_of(const MatrixRows<T>& m, const Vectors<const float>& w,
                        const Vectors<float>& y) {
  if constexpr (vectors > 1) {
    if (w.count < static_cast<int64_t>(vectors)) return sums_of<vectors - 1>(m, w, y);
  }
  constexpr size_t chunk = vectors == 3 ? most_sums / 4 : std::min<size_t>(8, most_sums / vectors);
  const int64_t lanes = lane_count(), step = static_cast<int64_t>(chunk) * lanes;
  const auto from = [&](int64_t i) {
    return MatrixRows<T>{m.data + i, m.rows, m.columns - i, m.stride};
  };
  const auto to = [&](int64_t i) { return Vectors<float>{y.data + i, y.count, y.stride}; };
  constexpr int64_t cache_bytes = 1 << 15;
  if (m.columns > step && m.rows * m.stride * static_cast<int64_t>(sizeof(T)) > cache_bytes) {
    for (size_t h = 0; h < vectors; ++h) {
      std::memset(y.data + static_cast<int64_t>(h) * y.stride, 0,
                  static_cast<size_t>(m.columns) * sizeof(float));
    }
    for (int64_t r = 0; r < m.rows; ++r) {
      const Vectors<const float> weights{w.data + r, w.count, w.stride};
      for_lanes(m.columns, [&](int64_t i, auto part) HWY_ATTR {
        add_row<vectors>(m.data + r * m.stride + i, weights, to(i), part);
      });
    }
    return;
  }
  int64_t i = 0;
  for (; i + step <= m.columns; i += step) {
    sum_tile<vectors, chunk>(from(i), w, to(i), AllLanes{});
  }
  for (; i + lanes <= m.columns; i += lanes) {
    sum_tile<vectors, 1>(from(i), w, to(i), AllLanes{});
  }
  if (i < m.columns) sum_tile<vectors, 1>(from(i), w, to(i), FirstLanes{m.columns - i});
}

// Several vectors at a time share what is read of the matrix.
template <class T>
HWY_INLINE void dots(const MatrixRows<T>& m, const Vectors<const float>& x,
                     const Vectors<float>& y) {
  constexpr int64_t group = 4;
  for (int64_t j = 0; j < x.count; j += group) {
    const int64_t n = std::min(group, x.count - j);
    dots_of<4>(m, {x.data + j * x.stride, n, x.stride}, {y.data + j * y.stride, n, y.stride});
  }
}

template <class T>
HWY_INLINE void sums(const MatrixRows<T>& m, const Vectors<const float>& w,
                     const Vectors<float>& y) {
  constexpr int64_t group = 4;
  for (int64_t j = 0; j < w.count; j += group) {
    const int64_t n = std::min(group, w.count - j);
    sums_of<4>(m, {w.data + j * w.stride, n, w.stride}, {y.data + j * y.stride, n, y.stride});
  }
}

void dots_f32(const MatrixRows<float>& m, const Vectors<const float>& x, const Vectors<float>& y) {
  dots(m, x, y);
}
void dots_bf16(const MatrixRows<BFloat16>& m, const Vectors<const float>& x,
               const Vectors<float>& y) {
  dots(m, x, y);
}
void sums_f32(const MatrixRows<float>& m, const Vectors<const float>& w, const Vectors<float>& y) {
  sums(m, w, y);
}
void sums_bf16(const MatrixRows<BFloat16>& m, const Vectors<const float>& w,
               const Vectors<float>& y) {
  sums(m, w, y);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(dots_f32);
HWY_EXPORT(dots_bf16);
HWY_EXPORT(sums_f32);
HWY_EXPORT(sums_bf16);

// More of them wait for the vectors rather than for the matrix.
constexpr int64_t most_rows = 4, most_elements = 6144;

// Columns of C whose part of B stays in cache while groups of vectors pass over it.
constexpr int64_t most_columns = 32;

template <class S>
S* element(const MatrixView& m, int64_t row, int64_t column) {
  return reinterpret_cast<S*>(m.data) + row * m.stride + column;
}

// Columns [begin, end) of C; a: the rows of A as f32.
template <class T>
void multiply_columns(const MatrixView& c, const std::vector<float>& a, const MatrixView& b,
                      float alpha, int64_t begin, int64_t end) {
  float y[most_rows * most_columns];
  for (int64_t column = begin; column < end; column += most_columns) {
    const int64_t n = std::min(most_columns, end - column);
    dot_rows(MatrixRows<T>{element<const T>(b, column, 0), n, b.columns, b.stride},
             {a.data(), c.rows, b.columns}, {y, c.rows, most_columns});
    for (int64_t row = 0; row < c.rows; ++row) {
      for (int64_t i = 0; i < n; ++i) {
        const float value = alpha * y[row * most_columns + i];
        if (c.dtype == Dtype::bf16) {
          *element<BFloat16>(c, row, column + i) = BFloat16(value);
        } else {
          *element<float>(c, row, column + i) = value;
        }
      }
    }
  }
}

std::vector<float> rows_as_f32(const MatrixView& a) {
  std::vector<float> rows(static_cast<size_t>(a.rows * a.columns));
  for (int64_t row = 0; row < a.rows; ++row) {
    float* to = rows.data() + row * a.columns;
    if (a.dtype == Dtype::f32) {
      std::copy_n(element<const float>(a, row, 0), a.columns, to);
    } else {
      std::transform(element<const BFloat16>(a, row, 0), element<const BFloat16>(a, row, a.columns),
                     to, [](BFloat16 x) { return static_cast<float>(x); });
    }
  }
  return rows;
}

}  // namespace

void dot_rows(const MatrixRows<float>& m, const Vectors<const float>& x, const Vectors<float>& y) {
  HWY_DYNAMIC_DISPATCH(dots_f32)(m, x, y);
}
void dot_rows(const MatrixRows<BFloat16>& m, const Vectors<const float>& x,
              const Vectors<float>& y) {
  HWY_DYNAMIC_DISPATCH(dots_bf16)(m, x, y);
}
void dot_rows(const MatrixRows<double>& m, const Vectors<const double>& x,
              const Vectors<double>& y) {
  for (int64_t j = 0; j < x.count; ++j) {
    for (int64_t r = 0; r < m.rows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < m.columns; ++i) {
        sum += x.data[j * x.stride + i] * m.data[r * m.stride + i];
      }
      y.data[j * y.stride + r] = sum;
    }
  }
}

void sum_rows(const MatrixRows<float>& m, const Vectors<const float>& w, const Vectors<float>& y) {
  HWY_DYNAMIC_DISPATCH(sums_f32)(m, w, y);
}
void sum_rows(const MatrixRows<BFloat16>& m, const Vectors<const float>& w,
              const Vectors<float>& y) {
  HWY_DYNAMIC_DISPATCH(sums_bf16)(m, w, y);
}
void sum_rows(const MatrixRows<double>& m, const Vectors<const double>& w,
              const Vectors<double>& y) {
  for (int64_t j = 0; j < w.count; ++j) {
    double* to = y.data + j * y.stride;
    std::fill_n(to, m.columns, 0.0);
    for (int64_t r = 0; r < m.rows; ++r) {
      for (int64_t i = 0; i < m.columns; ++i) {
        to[i] += w.data[j * w.stride + r] * m.data[r * m.stride + i];
      }
    }
  }
}

bool is_thin(const MatrixView& c, const MatrixView& a, const MatmulSpec& spec) {
  const bool few = c.rows == 1 || (c.rows <= most_rows && c.rows * a.columns <= most_elements);
  return few && spec.transpose_b && !spec.transpose_a && !spec.accumulate &&
         (a.dtype == Dtype::f32 || a.dtype == Dtype::bf16);
}

void thin_product(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                  const MatmulSpec& spec) {
  const std::vector<float> rows = rows_as_f32(a);
  const auto alpha = static_cast<float>(spec.alpha);
  constexpr int64_t worth_a_thread = 1 << 19;  // bytes, some 40 microseconds of reading
  const int64_t row_bytes = b.columns * static_cast<int64_t>(size_of(b.dtype));
  const int64_t threads = threads_for(device, b.rows * row_bytes, worth_a_thread);
  // Whoever is free takes the next piece: a thread whose core is shared holds up nobody.
  const int64_t pieces = threads == 1 ? 1 : std::min(8 * threads, b.rows);
  parallel_for_dynamic(device, pieces, threads, [&](int64_t piece) {
    const int64_t begin = b.rows * piece / pieces, end = b.rows * (piece + 1) / pieces;
    if (b.dtype == Dtype::bf16) {
      multiply_columns<BFloat16>(c, rows, b, alpha, begin, end);
    } else {
      multiply_columns<float>(c, rows, b, alpha, begin, end);
    }
  });
}

}  // namespace shoestring
#endif  // HWY_ONCE
