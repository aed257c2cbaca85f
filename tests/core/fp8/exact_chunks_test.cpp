#include "core/fp8/exact_chunks.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/fp8/small_float.h"

namespace shoestring {
namespace {

// The chunk's sum is made before anything is rounded: a large number that cancels leaves what is
// 2^25 times smaller, which no f32 sum of these terms would.
TEST(ExactChunks, SumsBeforeItRounds) {
  const uint8_t most = static_cast<uint8_t>(encode(e4m3_facts, 448)),
                least = static_cast<uint8_t>(encode(e4m3_facts, 0x1p-9f)),
                one = static_cast<uint8_t>(encode(e4m3_facts, 1));
  std::vector<uint8_t> a(128, 0), b(128, one);
  a[0] = b[0] = most;
  a[1] = least;
  b[1] = least;  // 2^-18
  a[127] = static_cast<uint8_t>(most | 0x80);
  b[127] = most;
  const float scale = 3;
  std::vector<float> columns(64, 0.5f);
  float sum = 0;
  exact_chunks({.a = a.data(),
                .a_row = 128,
                .a_step = 1,
                .b = b.data(),
                .b_step = 1,
                .b_column = 128,
                .m = 1,
                .n = 1,
                .k = 128,
                .chunk = 128,
                .rows = &scale,
                .rows_stride = 1,
                .columns = columns.data(),
                .columns_stride = 64,
                .sums = &sum,
                .sums_stride = 1});
  EXPECT_EQ(sum, 1.5f * 0x1p-18f);
}

// E5M2's products reach from 2^-32 to 2^31: more than f64 holds at once, so the order of k is part
// of the definition.
TEST(ExactChunks, SumsOfE5M2GoInTheOrderOfK) {
  const auto code = [](float x) { return static_cast<uint8_t>(encode(e5m2_facts, x)); };
  const uint8_t most = code(57344), least = code(0x1p-16f), minus = most | 0x80;
  const float scale = 1;
  const std::vector<float> columns(64, 1.0f);
  const auto sum_of = [&](const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    float sum = -1;
    exact_chunks({.a = a.data(),
                  .a_row = 3,
                  .a_step = 1,
                  .b = b.data(),
                  .b_step = 1,
                  .b_column = 3,
                  .a_format = Dtype::f8e5m2,
                  .b_format = Dtype::f8e5m2,
                  .m = 1,
                  .n = 1,
                  .k = 3,
                  .chunk = 128,
                  .rows = &scale,
                  .rows_stride = 1,
                  .columns = columns.data(),
                  .columns_stride = 64,
                  .sums = &sum,
                  .sums_stride = 1});
    return sum;
  };
  EXPECT_EQ(sum_of({most, least, minus}, {most, least, most}), 0);
  EXPECT_EQ(sum_of({most, minus, least}, {most, most, least}), 0x1p-32f);
}

}  // namespace
}  // namespace shoestring
