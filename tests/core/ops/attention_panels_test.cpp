#include "core/ops/attention_panels.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/core/ops/attention_case.h"

namespace shoestring::attention {
namespace {

// Every visible (row, key) lies in the limits of its row and of its key; all are monotonic.
TEST(AttentionPanels, LimitsHoldEveryVisiblePair) {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const Attention::Attributes& a = c.attributes;
    const RowMask mask{c.first_key.data(), a.window};
    for (int64_t row = 0; row < a.length; row += block_rows) {
      const int64_t rows = std::min(block_rows, a.length - row);
      for (int64_t key = 0; key < row + rows; key += block_keys) {
        for (const bool pairs : {false, true}) {
          const BlockLimits limits(mask, row, rows, key, pairs);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t n = 0; n < block_keys; ++n) {
              const bool seen = mask.low(row + r) <= key + n && key + n <= row + r;
              ASSERT_EQ(seen, limits.low[r] <= n && n < limits.high[r]) << r << ", " << n;
              if (limits.whole) {
                ASSERT_TRUE(seen);
                continue;
              }
              if (!seen) continue;
              const int64_t key_word = pairs ? n / 32 * 16 + n % 16 : n;
              ASSERT_LE(limits.key_low[r], key_word);
              ASSERT_GT(limits.key_high[r], key_word);
              ASSERT_LE(limits.row_low[n], pairs ? r / 2 : r);
              ASSERT_GT(limits.row_high[n], pairs ? r / 2 : r);
            }
          }
          for (int64_t r = 1; r < rows; ++r) {
            ASSERT_LE(limits.key_low[r - 1], limits.key_low[r]);
            ASSERT_LE(limits.key_high[r - 1], limits.key_high[r]);
          }
          for (int64_t n = 1; !limits.whole && n < block_keys; ++n) {
            ASSERT_LE(limits.row_low[n - 1], limits.row_low[n]);
            ASSERT_LE(limits.row_high[n - 1], limits.row_high[n]);
          }
        }
      }
    }
  }
}

TEST(AttentionPanels, PartsCoverEveryBlockOfEveryHeadOnce) {
  for (int threads : {1, 2, 3, 16, 64}) {
    for (int64_t blocks : {1, 2, 7, 50}) {
      for (bool late : {false, true}) {
        const Parts parts({.batch = 2, .kv_heads = 3}, threads, blocks, late);
        std::map<std::array<int64_t, 3>, int> seen;
        for (int64_t i = 0; i < parts.count(); ++i) {
          const Part part = parts.part(i);
          for (int64_t block = part.begin; block < part.end; ++block) {
            ++seen[{part.batch_row, part.kv_head, block}];
          }
        }
        ASSERT_EQ(seen.size(), static_cast<size_t>(6 * blocks));
        for (const auto& [where, times] : seen) ASSERT_EQ(times, 1);
      }
    }
  }
}

TEST(AttentionPanels, ScratchRefusesMoreThanItHas) {
  Device device(DeviceKind::cpu, 0, 1);
  Scratch scratch(device, 64);
  float* first = scratch.take(17);
  EXPECT_EQ(scratch.take(32), first + 32);
  EXPECT_THROW(scratch.take(1), Error);
}

}  // namespace
}  // namespace shoestring::attention
