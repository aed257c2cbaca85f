#include "core/fp8/e5m6.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(E5M6, StoresTwelveBitsAndReadsThemBack) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const int64_t columns : {1, 2, 127, 128, 129, 300}) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const Tensor x = spread_tensor(device, {9, columns}, dtype, "x");
      const E5M6Tensor stored = store_e5m6(stream, x);
      EXPECT_EQ(stored.codes.bytes(), static_cast<size_t>(9 * ((columns * 12 + 7) / 8)));
      const Tensor wide = load_e5m6(stream, stored, columns, Dtype::f32);
      const Tensor narrow = load_e5m6(stream, stored, columns, Dtype::bf16);
      for (int64_t row = 0; row < 9; ++row) {
        for (int64_t at = 0; at < columns; at += 128) {
          const int64_t end = std::min(at + 128, columns);
          float amax = 0;
          for (int64_t i = at; i < end; ++i) {
            amax = std::max(amax, std::fabs(value_at(x, row * columns + i)));
          }
          const float scale = twin_scale(amax, ScaleKind::power_of_two, 65024.0f);
          for (int64_t i = row * columns + at; i < row * columns + end; ++i) {
            const float want =
                decode(e5m6_facts, encode(e5m6_facts, value_at(x, i) / scale)) * scale;
            ASSERT_EQ(value_at(wide, i), want) << columns << " " << i;
            ASSERT_EQ(value_at(narrow, i), want) << columns << " " << i;  // bf16 holds it
          }
        }
      }
    }
  }
}

TEST(E5M6, WhatIsStoredTwiceStaysTheSame) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor x = spread_tensor(device, {20, 200}, Dtype::bf16, "x");
  const Tensor once = load_e5m6(stream, store_e5m6(stream, x), 200, Dtype::bf16);
  const Tensor twice = load_e5m6(stream, store_e5m6(stream, once), 200, Dtype::bf16);
  for (int64_t i = 0; i < x.elements(); ++i) {
    ASSERT_EQ(value_at(once, i), value_at(twice, i));
    ASSERT_NEAR(value_at(once, i), value_at(x, i), std::fabs(value_at(x, i)) / 64);
  }
}

TEST(E5M6, RefusesOtherTypesAndSizes) {
  Device device;
  Stream stream = Stream::immediate(device);
  EXPECT_THROW(store_e5m6(stream, Tensor(device, {2, 2}, Dtype::f64)), Error);
  const E5M6Tensor stored = store_e5m6(stream, spread_tensor(device, {2, 8}, Dtype::f32, "x"));
  EXPECT_THROW(load_e5m6(stream, stored, 9, Dtype::f32), Error);
}

}  // namespace
}  // namespace shoestring
