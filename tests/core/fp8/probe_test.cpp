#include "core/fp8/probe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"

namespace shoestring {
namespace {

Tensor of(Device& device, Shape shape, const std::vector<float>& values) {
  return Tensor::from<float>(device, std::move(shape), values);
}

TEST(Fp8Probe, MeasuresErrorsLossesAndSizes) {
  Device device;
  Stream stream = Stream::immediate(device);
  Fp8Probe probe;
  probe.compare(3, LinearProduct::dgrad, of(device, {1, 2}, {3, 4.5f}), of(device, {1, 2}, {3, 4}));
  // Two tiles: amax 448 and 2; 2^-12 of the first is flushed, as is half a step of the second.
  std::vector<float> values(130, 0.0f);
  values[0] = 448;
  values[1] = 0x1p-12f;
  values[128] = 2;
  const Tensor x = of(device, {1, 130}, values);
  probe.tell(3, LinearProduct::dgrad, x,
             quantise(stream, x, {Dtype::f8e4m3, {1, 128}, ScaleKind::plain}));
  ASSERT_EQ(probe.figures().size(), 1u);
  ProbeFigures f = probe.figures().at({3, LinearProduct::dgrad});
  EXPECT_DOUBLE_EQ(f.relative_error(), 0.5 / 5);
  EXPECT_EQ(f.values, 130);
  EXPECT_EQ(f.flushed, 1);
  EXPECT_EQ(f.saturated, 0);
  EXPECT_EQ(f.amax[64 + 8], 1);               // 2^8 <= 448
  EXPECT_EQ(f.amax[64 + 1] + f.amax[64], 1);  // 2, give or take a rounding
  f.add(f);
  EXPECT_DOUBLE_EQ(f.relative_error(), 0.1);
  EXPECT_EQ(f.values, 260);
}

TEST(Fp8Probe, SeesWhatIsCutOff) {
  Device device;
  Fp8Probe probe;
  const Tensor x = of(device, {1, 3}, {1, 500, -600});
  Fp8Tensor q{Tensor::zeros(device, {1, 3}, Dtype::f8e4m3), of(device, {1, 1}, {1}), {}};
  probe.tell(0, LinearProduct::fprop, x, q);
  EXPECT_EQ(probe.figures().begin()->second.saturated, 2);
  EXPECT_EQ(probe.figures().begin()->second.flushed, 3);
}

TEST(Fp8Probe, NoReferenceIsAnInfiniteError) {
  EXPECT_EQ(ProbeFigures{}.relative_error(), 0);
  EXPECT_TRUE(std::isinf(ProbeFigures{.difference = 1}.relative_error()));
  EXPECT_EQ(name_of(LinearProduct::wgrad), "wgrad");
}

}  // namespace
}  // namespace shoestring
