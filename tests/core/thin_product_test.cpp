#include "core/thin_product.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Sizes {
  int64_t vectors, rows, columns;
};

// Whole and broken vectors, groups and tiles; the padding of rows must stay unread.
std::vector<Sizes> sizes() {
  std::vector<Sizes> list;
  for (int64_t vectors : {1, 2, 3, 4, 5, 8}) {
    for (int64_t rows : {1, 4, 7, 40}) {
      for (int64_t columns : {1, 15, 64, 150}) list.push_back({vectors, rows, columns});
    }
  }
  return list;
}

constexpr int64_t padding = 3;

template <class T>
Tensor padded(Device& device, int64_t rows, int64_t columns, uint64_t seed) {
  std::vector<double> values = random_values(rows * (columns + padding), seed);
  for (size_t i = 0; i < values.size(); ++i) {
    if (static_cast<int64_t>(i) % (columns + padding) >= columns) values[i] = std::nan("");
  }
  return make_tensor(device, {rows, columns + padding}, dtype_of<T>, values);
}

template <class T, class S>
void expect_products(const Sizes& s, double tolerance) {
  Device device;
  const Tensor m = padded<T>(device, s.rows, s.columns, 1);
  const Tensor x = padded<S>(device, s.vectors, s.columns, 2);
  const Tensor w = padded<S>(device, s.vectors, s.rows, 3);
  const MatrixRows<T> rows{m.data<T>(), s.rows, s.columns, m.columns()};
  std::vector<S> dots(static_cast<size_t>(s.vectors * s.rows));
  std::vector<S> sums(static_cast<size_t>(s.vectors * s.columns));
  dot_rows(rows, Vectors<const S>{x.data<S>(), s.vectors, x.columns()},
           Vectors<S>{dots.data(), s.vectors, s.rows});
  sum_rows(rows, Vectors<const S>{w.data<S>(), s.vectors, w.columns()},
           Vectors<S>{sums.data(), s.vectors, s.columns});
  const auto at = [](const std::vector<double>& v, const Tensor& t, int64_t i, int64_t j) {
    return v[static_cast<size_t>(i * t.columns() + j)];
  };
  const auto mv = values_of(m), xv = values_of(x), wv = values_of(w);
  for (int64_t j = 0; j < s.vectors; ++j) {
    for (int64_t r = 0; r < s.rows; ++r) {
      double want = 0;
      for (int64_t i = 0; i < s.columns; ++i) want += at(xv, x, j, i) * at(mv, m, r, i);
      ASSERT_NEAR(static_cast<double>(dots[static_cast<size_t>(j * s.rows + r)]), want, tolerance);
    }
    for (int64_t i = 0; i < s.columns; ++i) {
      double want = 0;
      for (int64_t r = 0; r < s.rows; ++r) want += at(wv, w, j, r) * at(mv, m, r, i);
      ASSERT_NEAR(static_cast<double>(sums[static_cast<size_t>(j * s.columns + i)]), want,
                  tolerance);
    }
  }
}

TEST(ThinProduct, DotsAndSumsOfRowsAgreeWithPlainLoops) {
  for (const Sizes& s : sizes()) {
    SCOPED_TRACE(::testing::Message() << s.vectors << " x " << s.rows << " x " << s.columns);
    expect_products<double, double>(s, 1e-12);
    expect_products<float, float>(s, 1e-4);
    expect_products<BFloat16, float>(s, 1e-4);
  }
}

// C [M, N] = alpha A B^T from wider memory, in the types that matmul knows.
void expect_matrix(const Sizes& s, Dtype operand, Dtype result, int threads) {
  Device device(DeviceKind::cpu, 0, threads);
  const auto make = [&](int64_t rows, int64_t columns, uint64_t seed) {
    return operand == Dtype::bf16 ? padded<BFloat16>(device, rows, columns, seed)
                                  : padded<float>(device, rows, columns, seed);
  };
  const Tensor a = make(s.vectors, s.columns, 1), b = make(s.rows, s.columns, 2);
  const Tensor c = Tensor::zeros(device, {s.vectors, s.rows + padding}, result);
  const MatmulSpec spec{.transpose_b = true, .alpha = 0.5};
  const MatrixView cv = MatrixView(c).slice_columns(0, s.rows);
  const MatrixView av = MatrixView(a).slice_columns(0, s.columns);
  ASSERT_TRUE(is_thin(cv, av, spec));
  thin_product(device, cv, av, MatrixView(b).slice_columns(0, s.columns), spec);
  const auto x = values_of(a), y = values_of(b), z = values_of(c);
  const auto width = static_cast<size_t>(s.columns + padding);
  for (size_t i = 0; i < static_cast<size_t>(s.vectors); ++i) {
    for (size_t j = 0; j < static_cast<size_t>(s.rows + padding); ++j) {
      const double got = z[i * static_cast<size_t>(s.rows + padding) + j];
      double want = 0;
      if (j < static_cast<size_t>(s.rows)) {
        for (size_t k = 0; k < static_cast<size_t>(s.columns); ++k) {
          want += 0.5 * x[i * width + k] * y[j * width + k];
        }
      }
      ASSERT_NEAR(got, want, 1e-4 + roundoff(result) * std::abs(want)) << i << ", " << j;
    }
  }
}

TEST(ThinProduct, MultipliesMatricesOfFewRows) {
  for (const Sizes& s : sizes()) {
    if (s.vectors > 4) continue;
    expect_matrix(s, Dtype::f32, Dtype::f32, 1);
    expect_matrix(s, Dtype::bf16, Dtype::bf16, 2);
    expect_matrix(s, Dtype::bf16, Dtype::f32, 2);
  }
}

// Neither threads nor neighbours change an element: large enough for several threads.
TEST(ThinProduct, AnElementDependsOnItsRowsAlone) {
  constexpr int64_t n = 700, k = 400;
  Device keep;
  const Tensor a = make_tensor(keep, {4, k}, Dtype::f32, random_values(4 * k, 1));
  const Tensor b = make_tensor(keep, {n, k}, Dtype::f32, random_values(n * k, 2));
  const Tensor all = Tensor::zeros(keep, {4, n}, Dtype::f32);
  thin_product(keep, all, a, b, {.transpose_b = true});
  for (int threads = 1; threads <= 4; ++threads) {
    Device device(DeviceKind::cpu, 0, threads);
    for (int64_t rows : {1, 3, 4}) {
      const Tensor c = Tensor::zeros(device, {rows, n}, Dtype::f32);
      thin_product(device, c, a.rows(0, rows), b, {.transpose_b = true});
      expect_same_bits(c, all.rows(0, rows), "c");
    }
  }
}

TEST(ThinProduct, TakesOnlyWhatItCanDo) {
  Device device;
  const Tensor few = Tensor::zeros(device, {4, 1536}, Dtype::f32);
  const Tensor many = Tensor::zeros(device, {5, 4}, Dtype::f32);
  const Tensor wide = Tensor::zeros(device, {4, 4}, Dtype::f64);
  const Tensor long_one = Tensor::zeros(device, {1, 9000}, Dtype::bf16);
  const Tensor long_two = Tensor::zeros(device, {2, 9000}, Dtype::bf16);
  EXPECT_TRUE(is_thin(long_one, long_one, {.transpose_b = true}));
  EXPECT_FALSE(is_thin(long_two, long_two, {.transpose_b = true}));
  EXPECT_TRUE(is_thin(few, few, {.transpose_b = true}));
  EXPECT_FALSE(is_thin(many, many, {.transpose_b = true}));
  EXPECT_FALSE(is_thin(few, few, {}));
  EXPECT_FALSE(is_thin(few, few, {.transpose_b = true, .accumulate = true}));
  EXPECT_FALSE(is_thin(few, few, {.transpose_a = true, .transpose_b = true}));
  EXPECT_FALSE(is_thin(wide, wide, {.transpose_b = true}));
}

}  // namespace
}  // namespace shoestring
