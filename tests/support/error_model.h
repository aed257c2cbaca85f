#pragma once
// When is a fast result right? |got - want| <= c * k * eps * norm, element by element: k roundings
// of relative size eps on values as large as norm. `want` and `norm` come from the same formula in
// f64, norm with absolute values of every term; c is a small constant of the kernel (about 2).

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "core/text.h"

namespace shoestring::testing {

// Unit roundoff: half the distance from 1 to the next value.
inline double roundoff(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 0x1p-53;
    case Dtype::f32:
      return 0x1p-24;
    case Dtype::f16:
      return 0x1p-11;
    case Dtype::bf16:
      return 0x1p-8;
    case Dtype::f8e4m3:
      return 0x1p-4;
    case Dtype::f8e5m2:
      return 0x1p-3;
    default:
      return 0;
  }
}

struct ErrorBound {
  double inner_roundings = 1;       // k: how many roundings of the accumulation type
  Dtype accumulation = Dtype::f32;  // eps of those
  double output_roundings = 1;      // roundings of the result's own type
  double constant = 2;              // c
  double absolute = 1e-37;          // for results near the smallest normal number
};

// Any float tensor's values in f64.
inline std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> result(static_cast<size_t>(t.elements()));
  dispatch_float(t.dtype(), [&]<class T>() {
    const auto values = t.span<T>();
    for (size_t i = 0; i < values.size(); ++i) {
      if constexpr (std::is_same_v<T, BFloat16>) {
        result[i] = static_cast<float>(values[i]);
      } else {
        result[i] = values[i];
      }
    }
  });
  return result;
}

inline std::string coordinate(const Shape& shape, int64_t index) {
  std::string text = "]";
  for (int d = shape.rank() - 1; d >= 0; --d) {
    text = cat(index % shape[d], d + 1 < shape.rank() ? ", " : "", text);
    index /= shape[d];
  }
  return "[" + text;
}

// Compares every element and names the first bad coordinate, its value and its bound.
inline ::testing::AssertionResult within(const Tensor& got, std::span<const double> want,
                                         std::span<const double> norm, const ErrorBound& bound) {
  const auto values = to_doubles(got);
  if (values.size() != want.size() || norm.size() != want.size()) {
    return ::testing::AssertionFailure() << got.text() << " against " << want.size() << " values";
  }
  const double inner = bound.constant * bound.inner_roundings * roundoff(bound.accumulation);
  const double outer = bound.output_roundings * roundoff(got.dtype());
  int64_t bad = 0, first = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    const double limit = inner * norm[i] + outer * std::abs(want[i]) * (1 + inner) + bound.absolute;
    if (std::abs(values[i] - want[i]) <= limit) continue;
    if (bad++ == 0) first = static_cast<int64_t>(i);
  }
  if (bad == 0) return ::testing::AssertionSuccess();
  const auto i = static_cast<size_t>(first);
  return ::testing::AssertionFailure()
         << bad << " of " << values.size() << " elements of " << got.text() << " are off, first "
         << coordinate(got.shape(), first) << ": got " << values[i] << ", want " << want[i]
         << ", off by " << std::abs(values[i] - want[i]) << ", bound "
         << inner * norm[i] + outer * std::abs(want[i]) + bound.absolute;
}

// Bit for bit, NaNs included; names the first coordinate that differs.
inline ::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) {
    return ::testing::AssertionFailure() << a.text() << " against " << b.text();
  }
  const size_t width = size_of(a.dtype());
  for (size_t i = 0; i < a.bytes(); ++i) {
    if (a.raw()[i] == b.raw()[i]) continue;
    const auto index = static_cast<int64_t>(i / width);
    const auto x = to_doubles(a), y = to_doubles(b);
    return ::testing::AssertionFailure()
           << a.text() << " differs first at " << coordinate(a.shape(), index) << ": "
           << x[i / width] << " and " << y[i / width];
  }
  return ::testing::AssertionSuccess();
}

}  // namespace shoestring::testing
