#include "core/panel_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/instruction_set.h"

namespace shoestring {
namespace {

// Element (lane, k) of a strip holds 100 * lane + k, which bf16 keeps for the sizes used here.
template <class T>
std::vector<T> numbered(int64_t lanes, int64_t depth, bool along_k) {
  std::vector<T> data(static_cast<size_t>(lanes * depth));
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t at = along_k ? lane * depth + k : k * lanes + lane;
      data[static_cast<size_t>(at)] = static_cast<T>(static_cast<float>(16 * lane + k));
    }
  }
  return data;
}

template <class T>
void check_pack(int64_t width, int64_t lanes, int64_t depth, bool along_k) {
  const PanelKernels kernels = panel_kernels(dtype_of<T>);
  const auto data = numbered<T>(lanes, depth, along_k);
  const int64_t units = (depth + kernels.k_per_unit - 1) / kernels.k_per_unit;
  std::vector<float> panel(static_cast<size_t>(units * width + pack_slack), -1.0f);
  kernels.pack({.data = reinterpret_cast<const std::byte*>(data.data()),
                .lane_step = along_k ? depth : 1,
                .k_step = along_k ? 1 : lanes,
                .lanes = lanes,
                .depth = depth,
                .element_size = sizeof(T),
                .prefetch_k = 0},
               width, panel.data());
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int64_t k = 0; k < units * kernels.k_per_unit; ++k) {
      const float* unit = &panel[static_cast<size_t>(k / kernels.k_per_unit * width + lane)];
      const float got = kernels.k_per_unit == 1
                            ? *unit
                            : static_cast<float>(reinterpret_cast<const BFloat16*>(unit)[k % 2]);
      EXPECT_EQ(got, k < depth ? static_cast<float>(16 * lane + k) : 0.0f)
          << "width " << width << " lane " << lane << " k " << k << " along_k " << along_k;
    }
  }
}

TEST(PanelKernels, PackPutsEveryElementInItsPlace) {
  for (bool along_k : {false, true}) {
    for (int64_t width : {1, 2, 3, 4, 6, 8, 14}) {
      for (int64_t depth : {1, 2, 3, 8, 13}) {
        check_pack<float>(width, width, depth, along_k);
        check_pack<BFloat16>(width, width, depth, along_k);
        if (width > 2) check_pack<float>(width, width - 2, depth, along_k);
      }
    }
  }
}

TEST(PanelKernels, SizesFollowTheInstructionSet) {
  const PanelKernels kernels = panel_kernels(Dtype::bf16);
  EXPECT_EQ(kernels.k_per_unit, has_bf16_products() ? 2 : 1);
  EXPECT_LE(kernels.rows, most_panel_rows);
  EXPECT_EQ(kernels.multiply[0], nullptr);
  for (int64_t i = 1; i <= kernels.rows; ++i) EXPECT_NE(kernels.multiply[i], nullptr) << i;
}

TEST(PanelKernels, FinishScalesAddsAndRounds) {
  const std::vector<float> sums(40, 3.0f);
  std::vector<float> out(40, 1.0f);
  std::vector<BFloat16> narrow(40);
  Finish f{.sums = sums.data(),
           .sums_stride = 20,
           .out = reinterpret_cast<std::byte*>(out.data()),
           .out_stride = 20,
           .rows = 2,
           .columns = 19,
           .dtype = Dtype::f32,
           .accumulate = true,
           .alpha = 0.5f};
  const PanelKernels kernels = panel_kernels(Dtype::f32);
  kernels.finish(f);
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(out[i], i % 20 == 19 ? 1.0f : 2.5f) << i;
  f.out = reinterpret_cast<std::byte*>(narrow.data());
  f.dtype = Dtype::bf16, f.accumulate = false, f.alpha = 0.3f;
  kernels.finish(f);
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(narrow[i].bits, i % 20 == 19 ? 0 : BFloat16(0.3f * 3.0f).bits) << i;
  }
}

}  // namespace
}  // namespace shoestring
