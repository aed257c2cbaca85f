#include "core/fp8/small_float.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"

namespace shoestring {
namespace {

// Finite codes without their sign, in ascending order of value.
std::vector<float> values_of(const SmallFloat& f) {
  std::vector<float> values;
  for (uint32_t code = 0; code < f.infinity; ++code) values.push_back(decode(f, code));
  return values;
}

TEST(SmallFloat, KeyValuesAreThoseOfTheFormats) {
  EXPECT_EQ(decode(e4m3_facts, 0x7e), 448.0f);
  EXPECT_EQ(decode(e4m3_facts, 0x08), 0x1p-6f);
  EXPECT_EQ(decode(e4m3_facts, 0x01), 0x1p-9f);
  EXPECT_EQ(decode(e5m2_facts, 0x7b), 57344.0f);
  EXPECT_EQ(decode(e5m2_facts, 0x04), 0x1p-14f);
  EXPECT_EQ(decode(e5m2_facts, 0x01), 0x1p-16f);
  EXPECT_TRUE(std::isinf(decode(e5m2_facts, 0x7c)));
  EXPECT_EQ(decode(e5m6_facts, 0x7bf), 65024.0f);
  EXPECT_EQ(decode(e5m6_facts, 0x040), 0x1p-14f);
  EXPECT_EQ(decode(e5m6_facts, 0x001), 0x1p-20f);
  EXPECT_TRUE(std::isinf(decode(e5m6_facts, 0x7c0)));
  // Vectors of the PTX manual's conversions.
  EXPECT_EQ(encode(e4m3_facts, 464.0f), 0x7eu);
  EXPECT_EQ(encode(e4m3_facts, -std::numeric_limits<float>::infinity()), 0xfeu);
  EXPECT_EQ(encode(e4m3_facts, 0x1p-10f), 0x00u);
  EXPECT_EQ(encode(e4m3_facts, 1.5f * 0x1p-10f), 0x01u);
}

TEST(SmallFloat, AgreesWithTheElementTypes) {
  for (uint32_t code = 0; code < 256; ++code) {
    Float8E4M3 a;
    Float8E5M2 b;
    a.bits = b.bits = static_cast<uint8_t>(code);
    const float x = decode(e4m3_facts, code), y = decode(e5m2_facts, code);
    EXPECT_TRUE(x == static_cast<float>(a) || (std::isnan(x) && std::isnan(float(a)))) << code;
    EXPECT_TRUE(y == static_cast<float>(b) || (std::isnan(y) && std::isnan(float(b)))) << code;
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    EXPECT_EQ(encode(e4m3_facts, x), Float8E4M3(x).bits);
    EXPECT_EQ(encode(e5m2_facts, y), Float8E5M2(y).bits);
  }
}

// Every code comes back, and between any two neighbours the middle goes to the even one.
TEST(SmallFloat, RoundsToNearestEvenBetweenAllNeighbours) {
  for (const SmallFloat& f : {e4m3_facts, e5m2_facts, e5m6_facts}) {
    const std::vector<float> values = values_of(f);
    const uint32_t sign = 1u << (f.bits() - 1);
    for (uint32_t code = 0; code < values.size(); ++code) {
      EXPECT_EQ(encode(f, values[code]), code);
      EXPECT_EQ(encode(f, -values[code]), code | sign);
      if (code + 1 == values.size()) continue;
      ASSERT_LT(values[code], values[code + 1]);
      const float middle = (values[code] + values[code + 1]) / 2;
      EXPECT_EQ(encode(f, middle), code + code % 2) << middle;
      EXPECT_EQ(encode(f, std::nextafter(middle, 0.0f)), code) << middle;
      EXPECT_EQ(encode(f, std::nextafter(middle, 1e30f)), code + 1) << middle;
    }
    EXPECT_EQ(values.back(), f.largest);
    EXPECT_EQ(encode(f, 1e30f), values.size() - 1);
    EXPECT_EQ(encode(f, -1e30f), (values.size() - 1) | sign);
    EXPECT_EQ(encode(f, std::numeric_limits<float>::quiet_NaN()) & ~sign, f.nan);
    EXPECT_TRUE(std::isnan(decode(f, f.nan)));
  }
}

TEST(SmallFloat, OnlyEightBitTypesHaveFacts) {
  EXPECT_EQ(facts_of(Dtype::f8e4m3).largest, 448.0f);
  EXPECT_EQ(facts_of(Dtype::f8e5m2).largest, 57344.0f);
  EXPECT_THROW(facts_of(Dtype::bf16), Error);
}

}  // namespace
}  // namespace shoestring
