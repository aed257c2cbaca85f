#include "core/ops/attention_pack.h"

#include <gtest/gtest.h>

#include <bit>

#include "core/ops/attention_rows.h"
#include "tests/core/ops/attention_case.h"

namespace shoestring::attention {
namespace {

constexpr int64_t stride = 40;
struct Size {
  int64_t rows, columns;
};
constexpr Size sizes[] = {{1, 1}, {3, 16}, {5, 17}, {8, 33}, {64, 40}};

uint32_t pair(BFloat16 low, BFloat16 high) { return low.bits | uint32_t{high.bits} << 16; }

TEST(AttentionPack, F32WordsOfBothTypes) {
  const std::vector<BFloat16> halves = random_values<BFloat16>("x", 64 * stride);
  const std::vector<float> floats = random_values<float>("x", 64 * stride);
  for (const Size& n : sizes) {
    std::vector<float> a(n.rows * 48, -1), b = a;
    pack_f32(Rows<const float>{floats.data(), stride, n.rows, n.columns}, a.data(), 48);
    pack_f32(Rows<const BFloat16>{halves.data(), stride, n.rows, n.columns}, b.data(), 48);
    for (int64_t r = 0; r < n.rows; ++r) {
      for (int64_t i = 0; i < 48; ++i) {
        const int64_t at = r * stride + i;
        ASSERT_EQ(a[r * 48 + i], i < n.columns ? floats[at] : 0);
        ASSERT_EQ(b[r * 48 + i], i < n.columns ? static_cast<float>(halves[at]) : 0);
      }
    }
  }
}

TEST(AttentionPack, PairsAlongColumnsAndRows) {
  const std::vector<BFloat16> x = random_values<BFloat16>("x", 64 * stride);
  for (const Size& n : sizes) {
    const Rows<const BFloat16> from{x.data(), stride, n.rows, n.columns};
    const auto at = [&](int64_t r, int64_t i) {
      return r < n.rows && i < n.columns ? x[r * stride + i] : BFloat16();
    };
    std::vector<float> columns(n.rows * 32, -1), rows(32 * 48, -1), keys(32 * 48, -1);
    pack_column_pairs(from, columns.data(), 32);
    for (int64_t i = 0; i < n.rows * 32; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(columns[i]),
                pair(at(i / 32, i % 32 * 2), at(i / 32, i % 32 * 2 + 1)));
    }
    pack_row_pairs(from, false, 32, rows.data(), 48);
    pack_row_pairs(from, true, 32, keys.data(), 48);
    for (int64_t i = 0; i < 32 * 48; ++i) {
      const int64_t w = i / 48, column = i % 48;
      ASSERT_EQ(std::bit_cast<uint32_t>(rows[i]), pair(at(2 * w, column), at(2 * w + 1, column)));
      ASSERT_EQ(std::bit_cast<uint32_t>(keys[i]),
                pair(at(first_of_pair(w), column), at(second_of_pair(w), column)));
    }
  }
}

TEST(AttentionPack, Transpose) {
  const std::vector<float> from = random_values<float>("x", 64 * stride);
  std::vector<float> to(40 * 64, -1);
  transpose({.from = from.data(),
             .from_stride = stride,
             .rows = 64,
             .columns = 37,
             .to = to.data(),
             .to_stride = 64});
  for (int64_t r = 0; r < 64; ++r) {
    for (int64_t i = 0; i < 40; ++i) ASSERT_EQ(to[i * 64 + r], from[r * stride + i]);
  }
}

TEST(AttentionPack, UnpackScalesAndRounds) {
  const std::vector<float> from = random_values<float>("x", 64 * stride);
  for (const Size& n : sizes) {
    std::vector<float> factor;
    for (int64_t r = 0; r < n.rows; ++r) factor.push_back(0.3f * static_cast<float>(r + 1));
    std::vector<float> floats(n.rows * 50, -1);
    std::vector<BFloat16> halves(n.rows * 50, BFloat16(-1));
    unpack(from.data(), stride, factor.data(), Rows<float>{floats.data(), 50, n.rows, n.columns});
    unpack(from.data(), stride, factor.data(),
           Rows<BFloat16>{halves.data(), 50, n.rows, n.columns});
    for (int64_t r = 0; r < n.rows; ++r) {
      for (int64_t i = 0; i < 50; ++i) {
        const float want = i < n.columns ? factor[r] * from[r * stride + i] : -1;
        ASSERT_EQ(floats[r * 50 + i], want);
        ASSERT_EQ(halves[r * 50 + i].bits, BFloat16(want).bits);
      }
    }
  }
}

TEST(AttentionPack, RowDots) {
  const std::vector<float> x = random_values<float>("x", 64 * stride);
  const std::vector<float> y = random_values<float>("y", 64 * stride);
  const std::vector<BFloat16> u = random_values<BFloat16>("u", 64 * stride);
  for (const Size& n : sizes) {
    std::vector<float> f32(n.rows), bf16(n.rows);
    row_dots(Rows<const float>{x.data(), stride, n.rows, n.columns},
             Rows<const float>{y.data(), stride, n.rows, n.columns}, f32.data());
    row_dots(Rows<const BFloat16>{u.data(), stride, n.rows, n.columns},
             Rows<const BFloat16>{u.data(), stride, n.rows, n.columns}, bf16.data());
    for (int64_t r = 0; r < n.rows; ++r) {
      double want = 0, size = 0, square = 0;
      for (int64_t i = r * stride; i < r * stride + n.columns; ++i) {
        want += double{x[i]} * y[i];
        size += std::abs(double{x[i]} * y[i]);
        square += std::pow(static_cast<double>(static_cast<float>(u[i])), 2);
      }
      ASSERT_NEAR(f32[r], want, 40 * 0x1p-24 * size);
      ASSERT_NEAR(bf16[r], square, 40 * 0x1p-24 * square);
    }
  }
}

}  // namespace
}  // namespace shoestring::attention
