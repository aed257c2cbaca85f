#pragma once
// One product against sums in double, for every register tile and limit: the cases that the f32 and
// the bf16 kernels share.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "core/dtype.h"
#include "core/ops/attention_products.h"
#include "tests/core/ops/attention_case.h"

namespace shoestring::attention {

// The pair of bf16 in one word, as two terms of a sum; or the f32 itself and nothing.
struct Terms {
  double first, second;
};
inline Terms terms(float word, bool pairs) {
  if (!pairs) return {word, 0};
  const auto bits = std::bit_cast<uint32_t>(word);
  BFloat16 low, high;
  low.bits = static_cast<uint16_t>(bits);
  high.bits = static_cast<uint16_t>(bits >> 16);
  return {static_cast<float>(low), static_cast<float>(high)};
}

inline std::vector<float> words(std::string_view name, int64_t n, bool pairs) {
  std::vector<float> result = random_values<float>(name, n);
  const std::vector<float> more = random_values<float>(cat(name, "+"), n);
  for (int64_t i = 0; pairs && i < n; ++i) {
    const uint32_t word = BFloat16(result[i]).bits | uint32_t{BFloat16(more[i]).bits} << 16;
    result[i] = std::bit_cast<float>(word);
  }
  return result;
}

struct Sizes {
  int64_t rows, columns, steps;
};
constexpr float untouched = 12345;

// Every element against a sum in double; with limits, what lies inside them.
inline void expect_product(Multiply multiply, bool pairs, const Sizes& n, Limit limit) {
  SCOPED_TRACE(cat(n.rows, " x ", n.columns, " x ", n.steps, " limit ", static_cast<int>(limit)));
  for (const bool transposed : {false, true}) {
    std::vector<float> a = words("a", n.rows * n.steps, pairs);
    const std::vector<float> b = words("b", n.steps * n.columns, pairs);
    const int64_t a_row = transposed ? 1 : n.steps, a_step = transposed ? n.rows : 1;
    std::vector<int32_t> begin, end;
    for (int64_t r = 0; r < n.rows; ++r) {
      const int64_t size = limit == Limit::columns ? n.columns : n.steps;
      begin.push_back(static_cast<int32_t>(size * r / (2 * n.rows)));
      end.push_back(static_cast<int32_t>(size * (r + 1) / n.rows));
    }
    const auto inside = [&](int64_t r, int64_t i) { return begin[r] <= i && i < end[r]; };
    for (int64_t r = 0; limit == Limit::steps && r < n.rows; ++r) {
      for (int64_t k = 0; k < n.steps; ++k) {
        if (!inside(r, k)) a[r * a_row + k * a_step] = 0;
      }
    }
    for (const bool accumulate : {false, true}) {
      std::vector<float> c(static_cast<size_t>(n.rows * (n.columns + 16)), untouched);
      multiply({.a = a.data(),
                .a_row = a_row,
                .a_step = a_step,
                .b = b.data(),
                .b_step = n.columns,
                .c = c.data(),
                .c_row = n.columns + 16,
                .rows = n.rows,
                .columns = n.columns,
                .steps = n.steps,
                .accumulate = accumulate,
                .limit = limit,
                .begin = begin.data(),
                .end = end.data()});
      for (int64_t r = 0; r < n.rows; ++r) {
        for (int64_t j = 0; j < n.columns; ++j) {
          if (limit == Limit::columns && !inside(r, j)) continue;
          double sum = accumulate ? untouched : 0, size = std::abs(sum);
          for (int64_t k = 0; k < n.steps; ++k) {
            const Terms x = terms(a[r * a_row + k * a_step], pairs);
            const Terms y = terms(b[k * n.columns + j], pairs);
            sum += x.first * y.first + x.second * y.second;
            size += std::abs(x.first * y.first) + std::abs(x.second * y.second);
          }
          const double bound = std::ldexp(static_cast<double>(2 * n.steps + 1), -24) * size;
          ASSERT_NEAR(c[r * (n.columns + 16) + j], sum, bound) << r << ", " << j;
        }
        for (int64_t j = n.columns; j < n.columns + 16; ++j) {
          ASSERT_EQ(c[r * (n.columns + 16) + j], untouched) << "written beyond the columns";
        }
      }
    }
  }
}

inline void expect_products(Multiply multiply, bool pairs) {
  for (const Sizes& n : {Sizes{1, 16, 1}, Sizes{5, 32, 7}, Sizes{6, 64, 64}, Sizes{64, 48, 33},
                         Sizes{64, 64, 64}, Sizes{19, 80, 20}, Sizes{13, 192, 128}}) {
    for (const Limit limit : {Limit::none, Limit::columns, Limit::steps}) {
      expect_product(multiply, pairs, n, limit);
    }
  }
}

}  // namespace shoestring::attention
