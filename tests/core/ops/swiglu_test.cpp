#include "core/ops/swiglu.h"

#include <cstring>

#include "core/ops/swiglu_reference.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Outcome {
  Tensor gu, dy, y, dgu;
};

Outcome run(Device& device, int64_t rows, int64_t width, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  Outcome o;
  o.gu = make_tensor(device, {rows, 2 * width}, dtype, random_values(rows * 2 * width, 1, 3));
  o.dy = make_tensor(device, {rows, width}, dtype, random_values(rows * width, 2));
  Swiglu::Saved saved;
  o.y = Swiglu::forward(stream, {}, {o.gu}, saved)[0];
  o.dgu = Swiglu::grad_input(stream, {}, saved, {o.dy})[0];
  return o;
}

TEST(Swiglu, AgreesWithTheDoubleReferenceInEveryType) {
  Device device(DeviceKind::cpu, 0, 2);
  for (auto [rows, width] : {std::pair{1, 1}, {3, 7}, {17, 100}, {130, 33}}) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      const Outcome o = run(device, rows, width, dtype);
      const auto gu = values_of(o.gu), dy = values_of(o.dy);
      std::vector<double> y(dy.size()), dgu(gu.size());
      reference::swiglu_forward(rows, width, gu.data(), y.data());
      reference::swiglu_backward<double>({rows, width, gu.data(), dy.data(), dgu.data()});
      // The f32 arithmetic inside is good to a few ulp of each factor.
      const double inner = dtype == Dtype::f64 ? 0 : 16 * roundoff(Dtype::f32);
      const double roundings = 1.01 + inner / roundoff(dtype);
      expect_near(o.y, y, {roundings, inner}, "y");
      expect_near(o.dgu, dgu, {roundings, inner * 4}, "dgu");
    }
  }
}

TEST(Swiglu, ReferenceGradientByComplexStep) {
  const int64_t rows = 3, width = 4;
  const auto gu = random_values(rows * 2 * width, 1, 2), dy = random_values(rows * width, 2);
  std::vector<double> dgu(gu.size());
  reference::swiglu_backward<double>({rows, width, gu.data(), dy.data(), dgu.data()});
  expect_complex_step(
      [&](const std::vector<Complex>& x) {
        std::vector<Complex> y(dy.size());
        reference::swiglu_forward(rows, width, x.data(), y.data());
        return weighted_sum(y, dy);
      },
      gu, dgu, "dgu");
}

TEST(Swiglu, SameBitsOnAnyNumberOfThreads) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    Device one(DeviceKind::cpu, 0, 1);
    const Outcome first = run(one, 129, 77, dtype);
    for (int threads = 2; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      const Outcome other = run(device, 129, 77, dtype);
      expect_same_bits(other.y, first.y, "y");
      expect_same_bits(other.dgu, first.dgu, "dgu");
    }
  }
}

TEST(Swiglu, LargeGatesNeitherOverflowNorLoseNaN) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor gu = make_tensor(device, {4, 2}, Dtype::f32, {200, 2, -200, 2, 0, 2, NAN, 2});
  Tensor dy = make_tensor(device, {4, 1}, Dtype::f32, {1, 1, 1, 1});
  Swiglu::Saved saved;
  const auto y = Swiglu::forward(stream, {}, {gu}, saved);
  const auto dgu = Swiglu::grad_input(stream, {}, saved, {dy});
  const float* values = y[0].data<float>();
  EXPECT_FLOAT_EQ(values[0], 400);
  EXPECT_NEAR(values[1], 0, 1e-30);
  EXPECT_EQ(values[2], 0);
  EXPECT_TRUE(std::isnan(values[3]));
  EXPECT_FLOAT_EQ(dgu[0].data<float>()[0], 2);
  EXPECT_NEAR(dgu[0].data<float>()[2], 0, 1e-30);
  EXPECT_FLOAT_EQ(dgu[0].data<float>()[4], 1);
}

TEST(Swiglu, RefusesAnOddWidthAndSkipsEmptyGradients) {
  Device device;
  Stream stream = Stream::immediate(device);
  Swiglu::Saved saved;
  EXPECT_THROW(Swiglu::forward(stream, {}, {Tensor::zeros(device, {2, 5}, Dtype::f32)}, saved),
               Error);
  EXPECT_FALSE(Swiglu::grad_input(stream, {}, saved, {Tensor()})[0]);
}

}  // namespace
}  // namespace shoestring
