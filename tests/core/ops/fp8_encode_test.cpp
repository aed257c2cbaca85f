#include "core/ops/fp8_encode.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

TEST(Fp8Encode, IsTheQuantiserAndHasNoGradient) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = testing::spread_tensor(device, {7, 150}, Dtype::bf16, "x");
  const Fp8Encoding encoding{Dtype::f8e5m2, {1, 32}, ScaleKind::power_of_two};
  Fp8Encode::Saved saved;
  const auto [codes, scales] = Fp8Encode::forward(stream, {encoding}, {x}, saved);
  const Fp8Tensor want = quantise(stream, x, encoding);
  EXPECT_EQ(codes.text(), want.codes.text());
  EXPECT_EQ(0, std::memcmp(codes.raw(), want.codes.raw(), codes.bytes()));
  EXPECT_EQ(0, std::memcmp(scales.raw(), want.scales.raw(), scales.bytes()));
  EXPECT_FALSE(Fp8Encode::grad_input(stream, {encoding}, saved, {codes, scales})[0]);
}

}  // namespace
}  // namespace shoestring
