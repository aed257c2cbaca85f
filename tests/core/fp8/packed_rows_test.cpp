#include "core/fp8/packed_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/check.h"
#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.text() == b.text() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST(PackedRows, HoldCodesAndScalesOfEachRow) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const Fp8Encoding& encoding :
       {Fp8Encoding{}, Fp8Encoding{.tile = {1, 32}, .scales = ScaleKind::power_of_two},
        Fp8Encoding{.format = Dtype::f8e5m2}}) {
    for (int64_t rows : {0, 1, 37}) {
      for (int64_t columns : {1, 128, 300}) {
        for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
          Tensor x = spread_tensor(device, {rows, columns}, dtype, "x");
          if (rows > 2 && dtype == Dtype::f32) x.data<float>()[columns] = NAN;
          const Fp8Tensor want = quantise(stream, x, encoding);
          const Tensor packed = pack_rows(stream, x, encoding);
          EXPECT_TRUE(is_packed(packed));
          EXPECT_FALSE(is_packed(x));
          const int64_t tiles = (columns + encoding.tile.columns - 1) / encoding.tile.columns;
          EXPECT_EQ(packed.bytes(), static_cast<size_t>(rows * (columns + 4 * tiles)));
          EXPECT_EQ(packed.columns(), packed_columns(columns, encoding));
          const Fp8Tensor got = unpack_rows(stream, packed, columns, encoding);
          EXPECT_TRUE(same_bits(got.codes, want.codes));
          EXPECT_TRUE(same_bits(got.scales, want.scales));
          EXPECT_EQ(got.encoding, encoding);
        }
      }
    }
  }
  // The width of DeepSeek-V3: 7,168 codes and 56 scales.
  EXPECT_EQ(packed_columns(7168, Fp8Encoding{}), 7392);
}

TEST(PackedRows, RefuseTilesOfSeveralRowsAndOtherWidths) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = spread_tensor(device, {4, 130}, Dtype::bf16, "x");
  for (const Fp8Tile tile : {Fp8Tile{128, 128}, Fp8Tile{0, 0}, Fp8Tile{128, 1}}) {
    EXPECT_FALSE(can_be_packed({.tile = tile}));
    EXPECT_THROW(pack_rows(stream, x, {.tile = tile}), Error);
  }
  const Tensor packed = pack_rows(stream, x, {});
  EXPECT_THROW(unpack_rows(stream, packed, 129, {}), Error);
  EXPECT_THROW(unpack_rows(stream, packed, 130, {.format = Dtype::f8e5m2}), Error);
}

}  // namespace
}  // namespace shoestring
