#include <gtest/gtest.h>

#include <vector>

#include "core/instruction_set.h"
#include "core/panel_kernels.h"

namespace shoestring {
namespace {

// Whole numbers: the sum of products is exact. Where the processor has no bf16 products the table
// alone is checked, since its functions must not be called there.
TEST(Bf16Pairs, MultipliesEveryHeight) {
  PanelKernels kernels{};
  use_bf16_pairs(kernels);
  EXPECT_EQ(kernels.columns, 32);
  EXPECT_EQ(kernels.k_per_unit, 2);
  constexpr int64_t units = 5, width = 32;
  for (int64_t rows = 1; rows <= most_panel_rows; ++rows) {
    ASSERT_NE(kernels.multiply[rows], nullptr);
    if (!has_bf16_products()) continue;
    std::vector<BFloat16> a(static_cast<size_t>(units * rows * 2)), b(units * width * 2);
    for (size_t i = 0; i < a.size(); ++i) a[i] = BFloat16(static_cast<float>(i % 7) - 3);
    for (size_t i = 0; i < b.size(); ++i) b[i] = BFloat16(static_cast<float>(i % 5) - 2);
    std::vector<float> c(static_cast<size_t>(rows * width), 1.0f);
    for (bool add : {false, true}) {
      kernels.multiply[rows]({.a = reinterpret_cast<const float*>(a.data()),
                              .b = reinterpret_cast<const float*>(b.data()),
                              .units = units,
                              .c = c.data(),
                              .stride = width,
                              .add = add});
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < width; ++j) {
          float sum = 0;
          for (int64_t k = 0; k < 2 * units; ++k) {
            const auto ai = static_cast<size_t>((k / 2 * rows + i) * 2 + k % 2);
            const auto bi = static_cast<size_t>((k / 2 * width + j) * 2 + k % 2);
            sum += static_cast<float>(a[ai]) * static_cast<float>(b[bi]);
          }
          EXPECT_EQ(c[static_cast<size_t>(i * width + j)], add ? 2 * sum : sum) << rows;
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
