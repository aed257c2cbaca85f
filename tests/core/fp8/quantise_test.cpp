#include "core/fp8/quantise.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

const std::vector<Fp8Tile> tiles = {{1, 128}, {128, 1}, {128, 128}, {1, 32}, {32, 1}, {0, 0}};

void expect_twin(const Fp8Tensor& got, const Tensor& x, const std::string& what) {
  const TwinTensor want = twin_quantise(x, got.encoding);
  ASSERT_EQ(got.scales.elements(), static_cast<int64_t>(want.scales.size())) << what;
  for (size_t i = 0; i < want.scales.size(); ++i) {
    const float scale = got.scales.data<float>()[i];
    ASSERT_TRUE(scale == want.scales[i] || (std::isnan(scale) && std::isnan(want.scales[i])))
        << what << " scale " << i << ": " << scale << ", not " << want.scales[i];
  }
  const auto* codes = reinterpret_cast<const uint8_t*>(got.codes.raw());
  for (size_t i = 0; i < want.codes.size(); ++i) {
    const bool nan = decode(facts_of(got.encoding.format), want.codes[i]) !=
                     decode(facts_of(got.encoding.format), want.codes[i]);
    const uint8_t mask = nan ? 0x7f : 0xff;
    ASSERT_EQ(codes[i] & mask, want.codes[i] & mask) << what << " element " << i;
  }
}

// Shapes whose edges are no multiples of a tile or of a vector, all formats, tiles and scales.
TEST(Quantise, EqualsThePlainTwin) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 5, 129}, Shape{130, 300}, Shape{257, 37}}) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const Tensor x = spread_tensor(device, shape, dtype, "x");
      for (Dtype format : {Dtype::f8e4m3, Dtype::f8e5m2}) {
        for (ScaleKind scales : {ScaleKind::plain, ScaleKind::power_of_two}) {
          for (const Fp8Tile& tile : tiles) {
            const Fp8Tensor got = quantise(stream, x, {format, tile, scales});
            expect_twin(got, x,
                        cat(shape.text(), " ", name_of(dtype), " ", name_of(format), " ", tile.rows,
                            "x", tile.columns));
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// All codes and the middles between neighbours, with a scale of exactly one.
TEST(Quantise, AllCodesAndMiddlesRoundAsTheyShould) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (Dtype format : {Dtype::f8e4m3, Dtype::f8e5m2}) {
    const SmallFloat& f = facts_of(format);
    std::vector<float> values;
    for (uint32_t code = 0; code < 256; ++code) {
      const float x = decode(f, code), y = decode(f, code + 1 < 256 ? code + 1 : code);
      if (!std::isfinite(x)) continue;
      values.push_back(x);
      if (!std::isfinite(y)) continue;
      values.push_back((x + y) / 2);
      values.push_back(std::nextafter((x + y) / 2, 0.0f));
      values.push_back(std::nextafter((x + y) / 2, x < 0 ? -1e30f : 1e30f));
    }
    values.push_back(f.largest);
    const auto n = static_cast<int64_t>(values.size());
    const Tensor x = Tensor::from<float>(device, {1, n}, values);
    const Fp8Tensor got = quantise(stream, x, {format, {1, n}, ScaleKind::plain});
    ASSERT_EQ(got.scales.data<float>()[0], 1.0f);
    expect_twin(got, x, std::string(name_of(format)));
  }
}

TEST(Quantise, InfinityAndNanSpoilTheirTileAndNoOther) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN()}) {
    for (const Fp8Tile& tile : tiles) {
      Tensor x = spread_tensor(device, {200, 300}, Dtype::f32, "x");
      x.data<float>()[130 * 300 + 140] = bad;
      const Fp8Tensor got = quantise(stream, x, {Dtype::f8e4m3, tile, ScaleKind::power_of_two});
      const Tensor back = dequantise(stream, got, Dtype::f32);
      for (int64_t row = 0; row < 200; ++row) {
        for (int64_t column = 0; column < 300; ++column) {
          const bool inside = tile.whole() || (row / tile.rows == 130 / tile.rows &&
                                               column / tile.columns == 140 / tile.columns);
          ASSERT_EQ(std::isnan(back.data<float>()[row * 300 + column]), inside)
              << tile.rows << "x" << tile.columns << " at " << row << ", " << column;
        }
      }
    }
  }
}

TEST(Quantise, ScalesHaveAFloorAndAPowerOfTwoCoversItsTile) {
  EXPECT_EQ(scale_of(0, ScaleKind::plain, 448), smallest_scale);
  EXPECT_EQ(scale_of(1e-30f, ScaleKind::power_of_two, 448), smallest_scale);
  EXPECT_EQ(scale_of(448, ScaleKind::power_of_two, 448), 1.0f);
  EXPECT_EQ(scale_of(std::nextafter(448.0f, 500.0f), ScaleKind::power_of_two, 448), 2.0f);
  EXPECT_EQ(scale_of(447, ScaleKind::power_of_two, 448), 1.0f);
  EXPECT_EQ(scale_of(224, ScaleKind::power_of_two, 448), 0.5f);
  EXPECT_EQ(scale_of(1, ScaleKind::plain, 448), 1.0f / 448.0f);
}

TEST(Quantise, ReadsBackWithinHalfAStep) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = spread_tensor(device, {70, 200}, Dtype::f32, "x");
  const Fp8Tensor q = quantise(stream, x, {Dtype::f8e4m3, {1, 128}, ScaleKind::plain});
  const Tensor back = dequantise(stream, q, Dtype::f32), codes = widen(stream, q);
  for (int64_t i = 0; i < x.elements(); ++i) {
    const float value = x.data<float>()[i], scale = scale_at(q, i / 200, i % 200);
    // Half of a step of 2^-3 relative, or of the smallest subnormal.
    const float allowed = std::max(std::fabs(value) / 16, scale * 0x1p-10f) * 1.0001f;
    ASSERT_NEAR(back.data<float>()[i], value, allowed) << i;
    ASSERT_EQ(static_cast<float>(codes.data<BFloat16>()[i]), decoded(q, i)) << i;
    ASSERT_EQ(back.data<float>()[i], decoded(q, i) * scale) << i;
  }
}

// The stored copy, read in f32 and quantised along the other dimension.
TEST(Quantise, TurnsTilesThroughTheStoredCopy) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = spread_tensor(device, {150, 333}, Dtype::bf16, "x");
  for (const Fp8Tile& tile : {Fp8Tile{1, 128}, Fp8Tile{128, 128}, Fp8Tile{0, 0}}) {
    const Fp8Tensor stored = quantise(stream, x, {Dtype::f8e4m3, {1, 128}, ScaleKind::plain});
    const Fp8Encoding turned{Dtype::f8e4m3, tile.transposed(), ScaleKind::power_of_two};
    const Fp8Tensor got = requantise(stream, stored, turned);
    expect_twin(got, dequantise(stream, stored, Dtype::f32), "turned");
  }
}

TEST(Quantise, ThreadsChangeNoBit) {
  Device many(DeviceKind::cpu, 0, 4), one(DeviceKind::cpu, 0, 1);
  for (const Fp8Tile& tile : tiles) {
    const Fp8Encoding e{Dtype::f8e4m3, tile, ScaleKind::plain};
    Stream a = Stream::immediate(many), b = Stream::immediate(one);
    const Fp8Tensor x = quantise(a, spread_tensor(many, {500, 260}, Dtype::bf16, "x"), e);
    const Fp8Tensor y = quantise(b, spread_tensor(one, {500, 260}, Dtype::bf16, "x"), e);
    EXPECT_EQ(0, std::memcmp(x.codes.raw(), y.codes.raw(), x.codes.bytes()));
    EXPECT_EQ(0, std::memcmp(x.scales.raw(), y.scales.raw(), x.scales.bytes()));
  }
}

TEST(Quantise, RefusesWhatItCannotEncode) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor wide(device, {4, 4}, Dtype::f64), x(device, {4, 4}, Dtype::f32);
  EXPECT_THROW(quantise(stream, wide, {}), Error);
  EXPECT_THROW(quantise(stream, x, {.format = Dtype::bf16}), Error);
  EXPECT_THROW(quantise(stream, x, {.tile = {0, 128}}), Error);
}

}  // namespace
}  // namespace shoestring
