#include "core/fp8/segments.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

const std::vector<int64_t> borders = {0, 7, 7, 150, 290};

void expect_same(const Fp8Tensor& got, const Fp8Tensor& want, int64_t segment) {
  ASSERT_EQ(got.codes.text(), want.codes.text()) << segment;
  ASSERT_EQ(got.scales.text(), want.scales.text()) << segment;
  EXPECT_EQ(0, std::memcmp(got.codes.raw(), want.codes.raw(), got.codes.bytes())) << segment;
  EXPECT_EQ(0, std::memcmp(got.scales.raw(), want.scales.raw(), got.scales.bytes())) << segment;
}

// Each segment has the codes that it would have alone: tiles restart at its border.
TEST(Fp8Segments, TilesRestartAtEveryBorder) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = spread_tensor(device, {300, 140}, Dtype::bf16, "x");
  for (const Fp8Tile& tile : {Fp8Tile{1, 128}, Fp8Tile{128, 1}, Fp8Tile{128, 128}, Fp8Tile{0, 0}}) {
    const Fp8Encoding e{Dtype::f8e4m3, tile, ScaleKind::plain};
    const Fp8Encoding turned{Dtype::f8e4m3, tile.transposed(), ScaleKind::power_of_two};
    const Fp8Segments got = quantise_segments(stream, x, e, borders);
    const Fp8Segments again = requantise_segments(stream, got, turned);
    const Tensor back = dequantise_segments(stream, got, Dtype::f32);
    for (int64_t i = 0; i < got.count(); ++i) {
      const int64_t begin = borders[static_cast<size_t>(i)],
                    end = borders[static_cast<size_t>(i) + 1];
      if (begin == end) continue;
      const Fp8Tensor alone = quantise(stream, x.rows(begin, end), e);
      expect_same(got.segment(i), alone, i);
      expect_same(again.segment(i), requantise(stream, alone, turned), i);
      const Tensor values = dequantise(stream, alone, Dtype::f32), rows = back.rows(begin, end);
      EXPECT_EQ(0, std::memcmp(rows.raw(), values.raw(), values.bytes()));
    }
    for (int64_t i = 290 * 140; i < 300 * 140; ++i) ASSERT_EQ(back.data<float>()[i], 0);
  }
}

}  // namespace
}  // namespace shoestring
