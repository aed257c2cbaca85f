#include "core/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/random.h"
#include "tests/support/error_model.h"

namespace shoestring {
namespace {

using testing::same_bits;
using testing::to_doubles;
using testing::within;

struct Case {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false, accumulate = false, exact = false;
  Dtype operand = Dtype::f32, result = Dtype::f32;
  int64_t padding = 0;  // how much wider the rows in memory are
  double alpha = 1.0;
};

std::string text_of(const Case& c) {
  return cat(c.m, "x", c.n, "x", c.k, c.transpose_a ? " ta" : "", c.transpose_b ? " tb" : "",
             c.accumulate ? " acc" : "", c.exact ? " exact" : "", " ", name_of(c.operand), "->",
             name_of(c.result), " padding ", c.padding, " alpha ", c.alpha);
}

Tensor random_tensor(Device& device, Shape shape, Dtype dtype, std::string_view name) {
  Tensor t(device, std::move(shape), dtype);
  const RandomStream random(7, name);
  dispatch_float(dtype, [&]<class T>() {
    auto values = t.span<T>();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(static_cast<float>(2 * random.uniform(i) - 1));
    }
  });
  return t;
}

// Operands in wider memory, so that strides count; the padding holds NaN and must stay unread.
struct Operand {
  Tensor memory;
  MatrixView view;
};
Operand operand(Device& device, int64_t rows, int64_t columns, int64_t padding, Dtype dtype,
                std::string_view name) {
  Operand o{random_tensor(device, {rows, columns + padding}, dtype, name), {}};
  dispatch_float(dtype, [&]<class T>() {
    T* data = o.memory.data<T>();
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = columns; j < columns + padding; ++j) {
        data[i * (columns + padding) + j] = static_cast<T>(std::nanf(""));
      }
    }
  });
  o.view = MatrixView(o.memory).slice_columns(0, columns);
  return o;
}

Tensor tight(Device& device, const MatrixView& view) {
  Tensor t(device, {view.rows, view.columns}, view.dtype);
  const size_t width = size_of(view.dtype), row = static_cast<size_t>(view.columns) * width;
  for (int64_t i = 0; i < view.rows; ++i) {
    std::memcpy(t.raw() + static_cast<size_t>(i) * row,
                view.data + static_cast<size_t>(i * view.stride) * width, row);
  }
  return t;
}

struct Product {
  Tensor result;
  std::vector<double> want, norm;
};

// `reference`: also the f64 product, which takes the most time.
Product run(Device& device, const Case& c, bool reference = true) {
  const auto a = operand(device, c.transpose_a ? c.k : c.m, c.transpose_a ? c.m : c.k, c.padding,
                         c.operand, "a");
  const auto b = operand(device, c.transpose_b ? c.n : c.k, c.transpose_b ? c.k : c.n, c.padding,
                         c.operand, "b");
  auto out = operand(device, c.m, c.n, c.padding, c.result, "c");
  const auto av = to_doubles(tight(device, a.view)), bv = to_doubles(tight(device, b.view));
  const auto cv = to_doubles(tight(device, out.view));
  Product p;
  for (int64_t i = 0; reference && i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0, norm = 0;
      for (int64_t k = 0; k < c.k; ++k) {
        const double term = av[static_cast<size_t>(c.transpose_a ? k * c.m + i : i * c.k + k)] *
                            bv[static_cast<size_t>(c.transpose_b ? j * c.k + k : k * c.n + j)];
        sum += term, norm += std::abs(term);
      }
      const double before = c.accumulate ? cv[static_cast<size_t>(i * c.n + j)] : 0;
      p.want.push_back(c.alpha * sum + before);
      p.norm.push_back(std::abs(c.alpha) * norm + std::abs(before));
    }
  }
  matmul(device, out.view, a.view, b.view,
         {.transpose_a = c.transpose_a,
          .transpose_b = c.transpose_b,
          .accumulate = c.accumulate,
          .exact = c.exact,
          .alpha = c.alpha});
  p.result = tight(device, out.view);
  for (int64_t i = 0; i < c.m; ++i) {  // nothing was written beside the view
    for (int64_t j = c.n; j < c.n + c.padding; ++j) {
      const auto row = to_doubles(out.memory.rows(i, i + 1));
      EXPECT_TRUE(std::isnan(row[static_cast<size_t>(j)])) << text_of(c) << " at " << i;
    }
  }
  return p;
}

::testing::AssertionResult right(Device& device, const Case& c) {
  const Product p = run(device, c);
  const Dtype inside = c.operand == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  auto result = within(p.result, p.want, p.norm,
                       {.inner_roundings = static_cast<double>(c.k) + 2, .accumulation = inside});
  return result ? result : result << " in " << text_of(c);
}

struct TypePair {
  Dtype operand, result;
};
constexpr TypePair type_pairs[] = {{Dtype::f32, Dtype::f32},
                                   {Dtype::bf16, Dtype::bf16},
                                   {Dtype::bf16, Dtype::f32},
                                   {Dtype::f64, Dtype::f64}};

template <class F>
void for_each_form(F&& f) {
  for (const auto& types : type_pairs) {
    for (int bits = 0; bits < 16; ++bits) {
      Case c{.m = 1, .n = 1, .k = 1};
      c.transpose_a = bits & 1, c.transpose_b = bits & 2;
      c.accumulate = bits & 4, c.exact = bits & 8;
      c.operand = types.operand, c.result = types.result;
      if (!(c.accumulate && c.result == Dtype::bf16)) f(c);
    }
  }
}

TEST(Matmul, EveryFormAtEdgeSizes) {
  Device device;
  const int64_t sizes[][3] = {{1, 1, 1},   {1, 17, 33},   {17, 1, 5},   {3, 5, 1},
                              {15, 31, 7}, {65, 33, 129}, {33, 70, 257}};
  for_each_form([&](Case c) {
    for (const auto& s : sizes) {
      c.m = s[0], c.n = s[1], c.k = s[2];
      for (int64_t padding : {0, 3}) {
        c.padding = padding;
        EXPECT_TRUE(right(device, c));
      }
    }
  });
}

TEST(Matmul, RandomShapes) {
  Device device;
  const RandomStream random(11, "shapes");
  uint64_t draw = 0;
  for_each_form([&](Case c) {
    for (int i = 0; i < 3; ++i) {
      c.m = 1 + static_cast<int64_t>(random.below(draw++, 150));
      c.n = 1 + static_cast<int64_t>(random.below(draw++, 150));
      c.k = 1 + static_cast<int64_t>(random.below(draw++, 300));
      c.padding = static_cast<int64_t>(random.below(draw++, 3));
      c.alpha = i == 0 ? 1.0 : 0.375 + i;
      EXPECT_TRUE(right(device, c));
    }
  });
}

TEST(Matmul, ManyTilesAndLongSums) {
  Device device;
  for (const auto& types : type_pairs) {
    if (types.operand == Dtype::f64) continue;
    for (bool exact : {false, true}) {
      Case c{.m = 600, .n = 130, .k = 700};
      c.exact = exact, c.operand = types.operand, c.result = types.result;
      EXPECT_TRUE(right(device, c));
      c = {.m = 40, .n = 50, .k = 5000, .transpose_a = true};
      c.exact = exact, c.operand = types.operand, c.result = types.result;
      EXPECT_TRUE(right(device, c));
    }
  }
}

TEST(Matmul, EmptyProducts) {
  Device device;
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
    Tensor c = random_tensor(device, {2, 3}, dtype, "c");
    const Tensor a(device, {2, 0}, dtype), b(device, {0, 3}, dtype);
    matmul(device, c, a, b);
    for (double x : to_doubles(c)) EXPECT_EQ(x, 0.0);
    Tensor none(device, {0, 3}, dtype);
    matmul(device, none, Tensor(device, {0, 2}, dtype), Tensor(device, {2, 3}, dtype));
  }
  Tensor kept = random_tensor(device, {2, 3}, Dtype::f32, "c");
  const auto before = to_doubles(kept);
  matmul(device, kept, Tensor(device, {2, 0}, Dtype::f32), Tensor(device, {0, 3}, Dtype::f32),
         {.accumulate = true});
  EXPECT_EQ(to_doubles(kept), before);
}

TEST(Matmul, ThreadsDoNotChangeBits) {
  for_each_form([&](Case c) {
    if (c.operand == Dtype::f64) return;
    const auto expect_same = [&c](std::initializer_list<int> teams) {
      Device one(DeviceKind::cpu, 0, 1);
      const Product want = run(one, c, false);
      for (int threads : teams) {
        Device many(DeviceKind::cpu, 0, threads);
        EXPECT_TRUE(same_bits(want.result, run(many, c, false).result))
            << text_of(c) << " " << threads;
      }
    };
    c.m = 400, c.n = 180, c.k = 400;  // enough work for four threads
    expect_same({2, 3, 4});
    c.m = 3, c.n = 3000, c.k = 1100;  // few rows, in four tiles
    expect_same({4});
  });
}

TEST(Matmul, ExactElementsDoNotDependOnTheirNeighbours) {
  Device device;
  for_each_form([&](Case c) {
    if (!c.exact || c.operand == Dtype::f64 || c.accumulate) return;
    const int64_t m = 173, n = 97, k = 611;
    const Tensor a =
        random_tensor(device, c.transpose_a ? Shape{k, m} : Shape{m, k}, c.operand, "a");
    const Tensor b =
        random_tensor(device, c.transpose_b ? Shape{n, k} : Shape{k, n}, c.operand, "b");
    Tensor whole(device, {m, n}, c.result), parts(device, {m, n}, c.result);
    MatmulSpec spec{.transpose_a = c.transpose_a, .transpose_b = c.transpose_b, .exact = true};
    matmul(device, whole, a, b, spec);
    const int64_t row_cuts[] = {0, 1, 17, 100, m}, column_cuts[] = {0, 33, 40, n};
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 3; ++j) {
        const int64_t r0 = row_cuts[i], r1 = row_cuts[i + 1];
        const int64_t c0 = column_cuts[j], c1 = column_cuts[j + 1];
        const MatrixView av(a), bv(b);
        matmul(device, MatrixView(parts).slice_rows(r0, r1).slice_columns(c0, c1),
               c.transpose_a ? av.slice_columns(r0, r1) : av.slice_rows(r0, r1),
               c.transpose_b ? bv.slice_rows(c0, c1) : bv.slice_columns(c0, c1), spec);
      }
    }
    EXPECT_TRUE(same_bits(whole, parts)) << text_of(c);
  });
}

TEST(Matmul, ExactAccumulationAddsTheFinishedProduct) {
  Device device;
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const Tensor a = random_tensor(device, {1500, 70}, dtype, "a");
    const Tensor b = random_tensor(device, {1500, 90}, dtype, "b");
    Tensor product(device, {70, 90}, Dtype::f32);
    Tensor sum = random_tensor(device, {70, 90}, Dtype::f32, "c");
    const Tensor start = Tensor::from<float>(device, {70, 90}, sum.span<float>());
    MatmulSpec spec{.transpose_a = true, .exact = true};
    matmul(device, product, a, b, spec);
    spec.accumulate = true;
    matmul(device, sum, a, b, spec);
    for (size_t i = 0; i < 70 * 90; ++i) {
      ASSERT_EQ(sum.span<float>()[i], start.span<float>()[i] + product.span<float>()[i]) << i;
    }
  }
}

TEST(Matmul, InsideParallelRegions) {
  Device device(DeviceKind::cpu, 0, 4);
  const Tensor a = random_tensor(device, {64, 96}, Dtype::f32, "a");
  const Tensor b = random_tensor(device, {96, 80}, Dtype::f32, "b");
  Tensor want(device, {64, 80}, Dtype::f32);
  matmul(device, want, a, b);
  std::vector<Tensor> got;
  for (int i = 0; i < 8; ++i) got.emplace_back(device, Shape{64, 80}, Dtype::f32);
  parallel_for_dynamic(device, 8,
                       [&](int64_t i) { matmul(device, got[static_cast<size_t>(i)], a, b); });
  for (const Tensor& t : got) EXPECT_TRUE(same_bits(want, t));
}

TEST(Matmul, WrongOperandsAreNamed) {
  Device device;
  const Tensor a(device, {2, 3}, Dtype::f32), b(device, {4, 5}, Dtype::f32);
  Tensor c(device, {2, 5}, Dtype::f32);
  try {
    matmul(device, c, a, b);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("f32 [2, 3] and f32 [4, 5]"), std::string::npos)
        << error.what();
  }
  const Tensor half(device, {3, 5}, Dtype::bf16);
  EXPECT_THROW(matmul(device, c, a, half), Error);
  Tensor narrow(device, {2, 5}, Dtype::bf16);
  const Tensor half_a(device, {2, 3}, Dtype::bf16);
  EXPECT_THROW(matmul(device, narrow, half_a, half, {.accumulate = true}), Error);
  EXPECT_THROW(MatrixView(a).slice_columns(2, 4), Error);
  EXPECT_THROW(MatrixView(a).slice_rows(-1, 1), Error);
}

}  // namespace
}  // namespace shoestring
