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
  EXPECT_EQ(f.amax[64 + 8], 1);  // 2^8 <= 448
  EXPECT_EQ(f.amax[64 + 1], 1);  // 2
  f.add(f);
  EXPECT_DOUBLE_EQ(f.relative_error(), 0.1);
  EXPECT_EQ(f.values, 260);
}

// Of the values, whatever the scale is rounded to; a tile of zeros has no exponent, one that is not
// finite no size.
TEST(Fp8Probe, TellsTheSizeOfTheLargestValueOfATile) {
  Device device;
  Stream stream = Stream::immediate(device);
  std::vector<float> values(5 * 32, 0.0f);
  values[3] = -1.8f;
  values[32] = 1;
  values[64 + 5] = std::nextafter(0.25f, 0.0f);
  values[128] = INFINITY;
  const Tensor x = of(device, {1, 5 * 32}, values);
  for (const ScaleKind scales : {ScaleKind::plain, ScaleKind::power_of_two}) {
    Fp8Probe probe;
    probe.tell(0, LinearProduct::fprop, x, quantise(stream, x, {Dtype::f8e4m3, {1, 32}, scales}));
    ProbeFigures f = probe.figures().begin()->second;
    EXPECT_EQ(f.amax[64], 2);  // 1.8 and 1
    EXPECT_EQ(f.amax[64 - 3], 1);
    EXPECT_EQ(f.zeros, 1);
    double all = 0;
    for (double count : f.amax) all += count;
    EXPECT_EQ(all, 3);
    f.add(f);
    EXPECT_EQ(f.zeros, 2);
  }
}

TEST(Fp8Probe, WatchesTheForwardPassUntilItEnds) {
  Fp8Probe probe;
  EXPECT_TRUE(probe.watches_forward());
  probe.end_forward();
  EXPECT_FALSE(probe.watches_forward());
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
