#include "core/product_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using testing::make_tensor;
using testing::random_values;
using testing::values_of;

// One form of product with sizes of its own (not those of the check).
struct Sample {
  int64_t m = 97, n = 45, k = 611;
  Dtype operand, result;
  MatmulSpec spec;
  Tensor a, b;

  Sample(Device& device, Dtype operand, Dtype result, MatmulSpec s)
      : operand(operand), result(result), spec(s) {
    a = make_tensor(device, s.transpose_a ? Shape{k, m} : Shape{m, k}, operand,
                    random_values(m * k, 1));
    b = make_tensor(device, s.transpose_b ? Shape{n, k} : Shape{k, n}, operand,
                    random_values(k * n, 2));
  }
  Tensor whole(Device& device) const {
    Tensor c(device, {m, n}, result);
    matmul(device, c, a, b, spec);
    return c;
  }
  // Row by row, and in two blocks of columns.
  Tensor in_rows(Device& device) const {
    Tensor c(device, {m, n}, result);
    const MatrixView av(a), bv(b);
    for (int64_t i = 0; i < m; ++i) {
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 7}, {7, n}}) {
        matmul(device, MatrixView(c).slice_rows(i, i + 1).slice_columns(begin, end),
               spec.transpose_a ? av.slice_columns(i, i + 1) : av.slice_rows(i, i + 1),
               spec.transpose_b ? bv.slice_rows(begin, end) : bv.slice_columns(begin, end), spec);
      }
    }
    return c;
  }
  // Plain loops in f64, with the sum of absolute products that bounds the error.
  void expect_near_plain_loops(const Tensor& c, const std::string& what) const {
    const auto x = values_of(a), y = values_of(b), z = values_of(c);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;
        for (int64_t l = 0; l < k; ++l) {
          const double p = x[static_cast<size_t>(spec.transpose_a ? l * m + i : i * k + l)] *
                           y[static_cast<size_t>(spec.transpose_b ? j * k + l : l * n + j)];
          sum += p;
          size += std::abs(p);
        }
        // f32 sums of k products, rounded once to the result's type.
        const double allowed = size * 0x1p-24 * std::sqrt(static_cast<double>(k)) +
                               std::abs(sum) * testing::roundoff(result);
        ASSERT_NEAR(z[static_cast<size_t>(i * n + j)], sum, allowed)
            << what << " at " << i << ", " << j;
      }
    }
  }
};

void for_each_form(bool exact, const std::function<void(Dtype, Dtype, const MatmulSpec&)>& f) {
  for (const auto& [operand, result] :
       {std::pair(Dtype::f32, Dtype::f32), std::pair(Dtype::bf16, Dtype::bf16),
        std::pair(Dtype::bf16, Dtype::f32)}) {
    for (bool ta : {false, true}) {
      for (bool tb : {false, true}) {
        f(operand, result, {.transpose_a = ta, .transpose_b = tb, .exact = exact});
      }
    }
  }
}

TEST(ProductCheck, ExactModeHoldsOnThisProcessor) {
  for (int threads : {1, 2, 3}) {
    Device device(DeviceKind::cpu, 0, threads);
    EXPECT_TRUE(products_are_row_independent(device, true)) << threads << " threads";
  }
}

// What the check claims of products, tried on other sizes and cuts: right numbers, the same bits.
TEST(ProductCheck, WhatItClaimsHoldsForOtherSizesAndCuts) {
  Device one(DeviceKind::cpu, 0, 1), three(DeviceKind::cpu, 0, 3);
  for (bool exact : {true, false}) {
    const bool claimed = products_are_row_independent(three, exact);
    for_each_form(exact, [&](Dtype operand, Dtype result, const MatmulSpec& spec) {
      const Sample sample(one, operand, result, spec);
      const std::string what = std::string(name_of(operand)) + " to " +
                               std::string(name_of(result)) + (exact ? ", exact" : "");
      const Tensor whole = sample.whole(three);
      sample.expect_near_plain_loops(whole, what);
      if (!claimed) return;
      testing::expect_same_bits(sample.whole(one), whole, what + " on one thread");
      testing::expect_same_bits(sample.in_rows(three), whole, what + " row by row");
    });
  }
}

// Products that betray how they were cut, each in a way of its own.
TEST(ProductCheck, FindsProductsThatDependOnTheirCut) {
  Device device(DeviceKind::cpu, 0, 2);
  auto found = [&](const std::function<bool(Device&, const MatrixView&, const MatmulSpec&)>& bad) {
    const Product product = [&](Device& d, const MatrixView& c, const MatrixView& a,
                                const MatrixView& b, const MatmulSpec& spec) {
      matmul(d, c, a, b, spec);
      if (c.dtype != Dtype::f32 || !bad(d, c, spec)) return;
      float& last = reinterpret_cast<float*>(c.data)[c.columns - 1];
      last = std::nextafter(last, 1e30f);
    };
    return !products_are_row_independent(device, true, product);
  };
  EXPECT_FALSE(found([](Device&, const MatrixView&, const MatmulSpec&) { return false; }));
  EXPECT_TRUE(found([](Device&, const MatrixView& c, const MatmulSpec&) { return c.rows < 100; }));
  EXPECT_TRUE(
      found([](Device&, const MatrixView& c, const MatmulSpec&) { return c.columns < 100; }));
  EXPECT_TRUE(
      found([](Device& d, const MatrixView&, const MatmulSpec&) { return d.threads() == 1; }));
  EXPECT_TRUE(found([](Device&, const MatrixView&, const MatmulSpec& s) { return s.accumulate; }));
  EXPECT_TRUE(found([](Device&, const MatrixView& c, const MatmulSpec& s) {
    return s.transpose_a && s.transpose_b && c.rows == 1;
  }));
}

}  // namespace
}  // namespace shoestring
