#pragma once
// What the tests of ops share: random tensors, tensors as doubles, comparison with an error model,
// complex-step gradients.

#include <gtest/gtest.h>
#include <cstring>

#include <cmath>
#include <complex>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/tensor.h"

namespace shoestring::testing {

using Complex = std::complex<double>;

// Unit roundoff: half a unit in the last place, relative.
inline double roundoff(Dtype dtype) {
  return dtype == Dtype::f32 ? 0x1p-24 : dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-53;
}

inline std::vector<double> random_values(int64_t n, uint64_t seed, double scale = 1) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> values(static_cast<size_t>(n));
  for (double& v : values) v = normal(generator);
  return values;
}

// Rounds to the dtype.
inline Tensor make_tensor(Device& device, Shape shape, Dtype dtype,
                          const std::vector<double>& values) {
  Tensor tensor(device, std::move(shape), dtype);
  EXPECT_EQ(tensor.elements(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == Dtype::f64) tensor.data<double>()[i] = values[i];
    if (dtype == Dtype::f32) tensor.data<float>()[i] = static_cast<float>(values[i]);
    if (dtype == Dtype::bf16) tensor.data<BFloat16>()[i] = BFloat16(static_cast<float>(values[i]));
  }
  return tensor;
}

inline Tensor make_ids(Device& device, const std::vector<int32_t>& ids) {
  return Tensor::from(device, {static_cast<int64_t>(ids.size())}, std::span<const int32_t>(ids));
}

inline std::vector<double> values_of(const Tensor& tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype() == Dtype::f64) values[i] = tensor.data<double>()[i];
    if (tensor.dtype() == Dtype::f32) values[i] = tensor.data<float>()[i];
    if (tensor.dtype() == Dtype::bf16) values[i] = static_cast<float>(tensor.data<BFloat16>()[i]);
  }
  return values;
}

inline std::vector<Complex> complex_of(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

// |actual - expected| <= roundoff of the tensor's type * |expected| * roundings + tolerance(i).
struct ErrorModel {
  double roundings = 1;  // to the tensor's type on the way to the result
  double absolute = 0;   // error of the f32 arithmetic inside, per element
};

inline void expect_near(const Tensor& actual, const std::vector<double>& expected, ErrorModel model,
                        const std::string& what) {
  ASSERT_EQ(actual.elements(), static_cast<int64_t>(expected.size())) << what;
  const std::vector<double> values = values_of(actual);
  for (size_t i = 0; i < expected.size(); ++i) {
    const double allowed =
        model.roundings * roundoff(actual.dtype()) * std::abs(expected[i]) + model.absolute;
    const double error = std::abs(values[i] - expected[i]);
    ASSERT_TRUE(error <= allowed) << what << " at [" << i / actual.columns() << ", "
                                  << i % actual.columns() << "] is " << values[i] << ", expected "
                                  << expected[i] << ", error " << error << " > " << allowed;
  }
}

inline void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.text(), b.text()) << what;
  ASSERT_EQ(0, std::memcmp(a.raw(), b.raw(), a.bytes())) << what;
}

// Compares `gradient` with the derivative of `loss` at `point`: loss(x + i h e_k) has the
// derivative in its imaginary part without any cancellation, so that 1e-12 is a fair bound.
inline void expect_complex_step(const std::function<Complex(const std::vector<Complex>&)>& loss,
                                const std::vector<double>& point,
                                const std::vector<double>& gradient, const std::string& what) {
  ASSERT_EQ(point.size(), gradient.size()) << what;
  constexpr double h = 1e-40;
  double largest = 0;
  for (double g : gradient) largest = std::max(largest, std::abs(g));
  for (size_t k = 0; k < point.size(); ++k) {
    std::vector<Complex> moved = complex_of(point);
    moved[k] += Complex(0, h);
    const double exact = loss(moved).imag() / h;
    ASSERT_NEAR(gradient[k], exact, 1e-12 * std::max(largest, 1e-3)) << what << " element " << k;
  }
}

// sum of weights * values, the loss of most tests.
inline Complex weighted_sum(const std::vector<Complex>& values,
                            const std::vector<double>& weights) {
  Complex sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
  return sum;
}

}  // namespace shoestring::testing
