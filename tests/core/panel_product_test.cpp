#include "core/panel_product.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/support/error_model.h"

namespace shoestring {
namespace {

// Whole numbers small enough that every sum is exact: the result must be exact too, whatever the
// cut, so any wrong index shows up as a whole number off by one or more.
Tensor whole_numbers(Device& device, int64_t rows, int64_t columns, Dtype dtype, uint64_t seed) {
  Tensor t(device, {rows, columns}, dtype);
  const RandomStream random(seed, "whole");
  dispatch_float(dtype, [&]<class T>() {
    for (size_t i = 0; i < t.span<T>().size(); ++i) {
      t.span<T>()[i] = static_cast<T>(static_cast<float>(random.below(i, 9)) - 4.0f);
    }
  });
  return t;
}

void expect_exact(Device& device, int64_t m, int64_t n, int64_t k, Dtype dtype) {
  for (int form = 0; form < 4; ++form) {
    const bool ta = form & 1, tb = form & 2;
    const Tensor a = whole_numbers(device, ta ? k : m, ta ? m : k, dtype, 1);
    const Tensor b = whole_numbers(device, tb ? n : k, tb ? k : n, dtype, 2);
    Tensor c(device, {m, n}, Dtype::f32), want(device, {m, n}, Dtype::f32);
    panel_product(device, c, a, b, {.transpose_a = ta, .transpose_b = tb});
    const auto av = testing::to_doubles(a), bv = testing::to_doubles(b);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l) {
          sum += av[static_cast<size_t>(ta ? l * m + i : i * k + l)] *
                 bv[static_cast<size_t>(tb ? j * k + l : l * n + j)];
        }
        want.span<float>()[static_cast<size_t>(i * n + j)] = static_cast<float>(sum);
      }
    }
    EXPECT_TRUE(testing::same_bits(c, want))
        << m << "x" << n << "x" << k << " form " << form << " " << name_of(dtype);
  }
}

TEST(PanelProduct, EveryPanelHeightAndWidth) {
  Device device(DeviceKind::cpu, 0, 2);
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (int64_t m = 1; m <= 30; m += m < 15 ? 1 : 4) {
      expect_exact(device, m, 65 - m, 19 + m, dtype);
    }
  }
}

// Sizes around the borders of blocks: rows 168, columns 256, K 512 units.
TEST(PanelProduct, BlockBorders) {
  Device device(DeviceKind::cpu, 0, 3);
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (int64_t k : {511, 512, 513, 1025}) expect_exact(device, 30, 40, k, dtype);
    for (int64_t m : {167, 169, 340}) expect_exact(device, m, 33, 40, dtype);
    for (int64_t n : {255, 257, 513}) expect_exact(device, 20, n, 40, dtype);
  }
}

// More packed columns than fit at once: several chunks, and several tiles of a long product.
TEST(PanelProduct, SeveralChunksOfColumns) {
  Device device(DeviceKind::cpu, 0, 2);
  expect_exact(device, 3, 2113, 4100, Dtype::f32);
}

// The forecast of memory is what the ledger sees.
TEST(PanelProduct, SaysHowMuchWorkspaceItTakes) {
  for (int threads : {1, 2, 3}) {
    for (const PanelSizes& sizes :
         {PanelSizes{512, 512, 64}, PanelSizes{512, 64, 512}, PanelSizes{100, 300, 1500},
          PanelSizes{7, 9, 33}, PanelSizes{3, 2113, 4100}}) {
      for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        Device device(DeviceKind::cpu, 0, threads);
        const Tensor a = Tensor::zeros(device, {sizes.rows, sizes.depth}, dtype);
        const Tensor b = Tensor::zeros(device, {sizes.columns, sizes.depth}, dtype);
        const Tensor c(device, {sizes.rows, sizes.columns}, Dtype::f32);
        panel_product(device, c, a, b, {.transpose_b = true});
        const int64_t said = panel_product_bytes(device, sizes, dtype),
                      seen = device.ledger().peak(MemoryKind::workspace);
        EXPECT_LE(seen, said) << sizes.rows << " " << sizes.columns << " " << sizes.depth;
        // Threads need not all be at work at once.
        if (threads == 1) {
          EXPECT_EQ(seen, said);
        }
      }
    }
  }
}

TEST(PanelProduct, MoreThreadsThanRows) {
  Device device(DeviceKind::cpu, 0, 8);
  expect_exact(device, 2, 700, 64, Dtype::f32);
  expect_exact(device, 1, 5, 64, Dtype::bf16);
}

}  // namespace
}  // namespace shoestring
