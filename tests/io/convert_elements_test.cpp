#include "io/convert_elements.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/check.h"

namespace shoestring {
namespace {

// One byte off any alignment, on both sides.
template <class To, class From>
std::vector<To> converted(const std::vector<From>& from, Dtype stored, Dtype to) {
  std::vector<std::byte> in(from.size() * sizeof(From) + 1);
  std::vector<std::byte> out(from.size() * sizeof(To) + 1);
  std::memcpy(in.data() + 1, from.data(), from.size() * sizeof(From));
  convert_elements(in.data() + 1, stored, static_cast<int64_t>(from.size()), to, out.data() + 1);
  std::vector<To> result(from.size());
  std::memcpy(result.data(), out.data() + 1, from.size() * sizeof(To));
  return result;
}

TEST(ConvertElements, WidensEveryCode) {
  std::vector<uint16_t> halves;
  for (uint32_t code = 0; code < 65536; ++code) halves.push_back(static_cast<uint16_t>(code));
  const auto from_half = converted<float>(halves, Dtype::f16, Dtype::f32);
  const auto from_brain = converted<float>(halves, Dtype::bf16, Dtype::f32);
  for (uint32_t code = 0; code < 65536; ++code) {
    BFloat16 brain;
    brain.bits = static_cast<uint16_t>(code);
    const float half = half_to_float(static_cast<uint16_t>(code));
    EXPECT_EQ(std::memcmp(&from_half[code], &half, 4), 0) << code;
    const auto wide = static_cast<float>(brain);
    EXPECT_EQ(std::memcmp(&from_brain[code], &wide, 4), 0) << code;
  }
  EXPECT_EQ(converted<float>(std::vector<uint8_t>{0x7e, 0x01}, Dtype::f8e4m3, Dtype::f32),
            (std::vector<float>{448, 0x1p-9f}));
  EXPECT_EQ(converted<float>(std::vector<uint8_t>{0x7b, 0x01}, Dtype::f8e5m2, Dtype::f32),
            (std::vector<float>{57344, 0x1p-16f}));
  EXPECT_EQ(converted<float>(std::vector<double>{0.1, -1e300}, Dtype::f64, Dtype::f32),
            (std::vector<float>{0.1f, -std::numeric_limits<float>::infinity()}));
}

TEST(ConvertElements, RoundsToNearestEven) {
  const std::vector<float> values = {1.0f, 1.00390625f, 1.01171875f, -3.3f};
  const auto narrow = converted<uint16_t>(values, Dtype::f32, Dtype::bf16);
  EXPECT_EQ(narrow, (std::vector<uint16_t>{0x3f80, 0x3f80, 0x3f82, 0xc053}));
}

TEST(ConvertElements, CopiesEqualTypes) {
  const std::vector<int64_t> values = {-1, INT64_MAX};
  EXPECT_EQ(converted<int64_t>(values, Dtype::i64, Dtype::i64), values);
}

TEST(ConvertElements, RefusesOtherPairs) {
  EXPECT_THROW(converted<float>(std::vector<int32_t>{1}, Dtype::i32, Dtype::f32), Error);
  EXPECT_THROW(converted<double>(std::vector<float>{1}, Dtype::f32, Dtype::f64), Error);
}

}  // namespace
}  // namespace shoestring
