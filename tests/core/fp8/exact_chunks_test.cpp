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

}  // namespace
}  // namespace shoestring
