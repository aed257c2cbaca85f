#include "core/ops/linear.h"

#include <gtest/gtest.h>

#include <complex>
#include <vector>

#include "core/check.h"
#include "core/random.h"
#include "tests/support/error_model.h"

namespace shoestring {
namespace {

constexpr int64_t T = 6, I = 5, O = 7;

// The op as a formula on any scalar: the loss is sum(y * dy).
template <class S>
S loss(const std::vector<S>& x, const std::vector<S>& w, const std::vector<double>& dy,
       double multiplier) {
  S sum = 0;
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t o = 0; o < O; ++o) {
      S y = 0;
      for (int64_t i = 0; i < I; ++i) {
        y += x[static_cast<size_t>(t * I + i)] * w[static_cast<size_t>(o * I + i)];
      }
      sum += y * multiplier * dy[static_cast<size_t>(t * O + o)];
    }
  }
  return sum;
}

Tensor random_tensor(Device& device, Shape shape, Dtype dtype, std::string_view name) {
  Tensor t(device, std::move(shape), dtype);
  const RandomStream random(3, name);
  dispatch_float(dtype, [&]<class S>() {
    for (size_t i = 0; i < t.span<S>().size(); ++i) {
      t.span<S>()[i] = static_cast<S>(static_cast<float>(random.normal(i)));
    }
  });
  return t;
}

TEST(Linear, GradientsEqualTheComplexStep) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Linear::Attributes attributes{.output_multiplier = 1.0 / 3.0};
  const Tensor x = random_tensor(device, {2, 3, I}, Dtype::f64, "x");
  const Tensor w = random_tensor(device, {O, I}, Dtype::f64, "w");
  const Tensor dy = random_tensor(device, {2, 3, O}, Dtype::f64, "dy");
  Linear::InputSaved input;
  Linear::WeightSaved weight;
  Linear::forward(stream, attributes, {x}, {w}, input, weight);
  const Tensor dx = Linear::grad_input(stream, attributes, input, {w}, {dy})[0];
  Tensor dw = Tensor::zeros(device, {O, I}, Dtype::f64);
  Linear::grad_weight(stream, attributes, weight, {dy}, {dw});

  const auto xv = testing::to_doubles(x), wv = testing::to_doubles(w),
             dyv = testing::to_doubles(dy);
  using C = std::complex<double>;
  const std::vector<C> xc(xv.begin(), xv.end()), wc(wv.begin(), wv.end());
  const double h = 1e-100;
  for (size_t i = 0; i < xc.size(); ++i) {
    auto moved = xc;
    moved[i] += C(0, h);
    const double want = loss<C>(moved, wc, dyv, attributes.output_multiplier).imag() / h;
    EXPECT_NEAR(dx.span<double>()[i], want, 1e-12 * (1 + std::abs(want)));
  }
  for (size_t i = 0; i < wc.size(); ++i) {
    auto moved = wc;
    moved[i] += C(0, h);
    const double want = loss<C>(xc, moved, dyv, attributes.output_multiplier).imag() / h;
    EXPECT_NEAR(dw.span<double>()[i], want, 1e-12 * (1 + std::abs(want)));
  }
}

// f32 and bf16 against f64 on the same (rounded) inputs.
TEST(Linear, NarrowTypesFollowTheOracle) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (bool exact : {false, true}) {
      const Linear::Attributes attributes{.exact = exact, .output_multiplier = 0.25};
      const int64_t rows = 70, in = 48, out = 33;
      Tensor narrow[3], wide[3];
      const Shape shapes[3] = {{rows, in}, {out, in}, {rows, out}};
      for (int i = 0; i < 3; ++i) {
        narrow[i] = random_tensor(device, shapes[i], dtype, cat("t", i));
        const auto values = testing::to_doubles(narrow[i]);
        wide[i] = Tensor::from<double>(device, shapes[i], values);
      }
      const auto compute = [&](const Tensor* t, Dtype gradient) {
        Linear::InputSaved input;
        Linear::WeightSaved weight;
        const Tensor y = Linear::forward(stream, attributes, {t[0]}, {t[1]}, input, weight)[0];
        const Tensor dx = Linear::grad_input(stream, attributes, input, {t[1]}, {t[2]})[0];
        Tensor dw = Tensor::zeros(device, {out, in}, gradient);
        Linear::grad_weight(stream, attributes, weight, {t[2]}, {dw});
        Linear::grad_weight(stream, attributes, weight, {t[2]}, {dw});  // adds, never overwrites
        return std::array{y, dx, dw};
      };
      const auto got = compute(narrow, Dtype::f32), want = compute(wide, Dtype::f64);
      EXPECT_EQ(got[0].dtype(), dtype);
      EXPECT_EQ(got[2].dtype(), Dtype::f32);
      for (size_t i = 0; i < 3; ++i) {
        const std::vector<double> norm(static_cast<size_t>(got[i].elements()), 40.0);
        EXPECT_TRUE(
            testing::within(got[i], testing::to_doubles(want[i]), norm, {.inner_roundings = 140}))
            << name_of(dtype) << " output " << i;
      }
    }
  }
}

TEST(Linear, AbsentGradientsStayAbsent) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor w = random_tensor(device, {O, I}, Dtype::f32, "w");
  EXPECT_FALSE(Linear::grad_input(stream, {}, {}, {w}, {})[0]);
  Tensor dw = random_tensor(device, {O, I}, Dtype::f32, "dw");
  const auto before = testing::to_doubles(dw);
  Linear::grad_weight(stream, {}, {random_tensor(device, {T, I}, Dtype::f32, "x")}, {}, {dw});
  EXPECT_EQ(testing::to_doubles(dw), before);
}

TEST(Linear, WrongShapesAreNamed) {
  EXPECT_EQ(Linear::shape({2, 3, 5}, {7, 5}), (Shape{2, 3, 7}));
  try {
    Linear::shape({2, 3, 4}, {7, 5});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[2, 3, 4] does not fit w [7, 5]"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
