#include "optim/newton_schulz.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/random.h"

namespace shoestring {
namespace {

using Matrix = std::vector<double>;

// f64 twin, plain loops, no transposition.
Matrix twin(Matrix x, size_t rows, int steps) {
  const size_t columns = x.size() / rows;
  double norm = 0;
  for (double v : x) norm += v * v;
  for (double& v : x) v /= std::sqrt(norm) + 1e-7;
  auto product = [](const Matrix& a, const Matrix& b, size_t m, size_t n, bool transposed) {
    const size_t k = a.size() / m;
    Matrix c(m * n);
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        for (size_t l = 0; l < k; ++l) {
          c[i * n + j] += a[i * k + l] * (transposed ? b[j * k + l] : b[l * n + j]);
        }
      }
    }
    return c;
  };
  for (int s = 0; s < steps; ++s) {
    const Matrix gram = product(x, x, rows, rows, true);
    Matrix polynomial = product(gram, gram, rows, rows, false);
    for (size_t i = 0; i < gram.size(); ++i) {
      polynomial[i] = 2.0315 * polynomial[i] - 4.7750 * gram[i];
    }
    const Matrix turned = product(polynomial, x, rows, columns, false);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] + turned[i];
  }
  return x;
}

std::vector<float> run(std::vector<float> x, int64_t rows, Dtype products = Dtype::f32,
                       int threads = 2) {
  Device device(DeviceKind::cpu, 0, threads);
  newton_schulz(device, x, rows, 5, products);
  return x;
}

void expect_near(const std::vector<float>& got, const Matrix& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(NewtonSchulz, KnownMatrices) {
  const Matrix square = {-0.680661, 0.825540, 0.741295, 0.259440};
  expect_near(run({1, 2, 3, 4}, 2), square, 5e-6);
  expect_near(run({1, 0, 2, -1, 3, 1}, 2),
              {0.307297, 0.010185, 0.624779, -0.327667, 0.993187, 0.337853}, 5e-6);
  expect_near(run({1, -1, 0, 3, 2, 1}, 3),  // transposed
              {0.307297, -0.327667, 0.010185, 0.993187, 0.624779, 0.337853}, 5e-6);
  const Matrix exact = twin({1, 2, 3, 4}, 2, 5);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(exact[i], square[i], 1e-6);
}

// Diagonal matrices show what becomes of singular values.
TEST(NewtonSchulz, KnownSingularValues) {
  const double in[] = {1e-3, 1e-2, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9};
  const double out[] = {0.4705, 0.6989, 0.7581, 0.7121, 1.0796, 0.7654, 1.1203, 0.682};
  for (size_t i = 0; i < 8; ++i) {
    const double other = std::sqrt(1 - in[i] * in[i]);  // makes the norm 1
    const std::vector<float> x =
        run({static_cast<float>(in[i]), 0, 0, static_cast<float>(other)}, 2);
    EXPECT_NEAR(x[0], out[i], 1e-4) << in[i];
  }
}

TEST(NewtonSchulz, RandomMatricesMatchTheTwin) {
  const RandomStream stream(1, "matrix");
  for (auto [rows, columns] : {std::pair<size_t, size_t>{24, 24}, {17, 50}, {50, 17}, {1, 9}}) {
    std::vector<float> x(rows * columns);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(stream.normal(i));
    const Matrix want = twin(Matrix(x.begin(), x.end()), rows, 5);
    const auto r = static_cast<int64_t>(rows);
    expect_near(run(x, r), want, 2e-4);
    expect_near(run(x, r, Dtype::bf16), want, 0.15);
    EXPECT_EQ(run(x, r, Dtype::f32, 1), run(x, r, Dtype::f32, 2));  // threads change nothing
    EXPECT_EQ(run(x, r, Dtype::bf16, 1), run(x, r, Dtype::bf16, 2));
  }
}

TEST(NewtonSchulz, ZeroStaysZero) {
  for (float v : run(std::vector<float>(12), 3)) EXPECT_EQ(v, 0);
}

TEST(NewtonSchulz, RefusesAShapelessMatrix) {
  EXPECT_THROW(run({1, 2, 3}, 2), Error);
  EXPECT_THROW(run({1, 2, 3, 4}, 2, Dtype::f64), Error);
}

}  // namespace
}  // namespace shoestring
