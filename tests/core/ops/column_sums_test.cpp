#include "core/ops/column_sums.h"

#include <cstring>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(ColumnSums, BlocksCoverAllRowsWithinTheirLimit) {
  for (int64_t rows : {0, 1, 63, 64, 65, 16384, 16385, 1000003}) {
    const int64_t block = column_sum_block(rows), blocks = column_sum_blocks(rows);
    EXPECT_GE(block * blocks, rows);
    EXPECT_LT(block * (blocks - 1), std::max<int64_t>(rows, 1));
    EXPECT_LE(blocks, 256);
    EXPECT_GE(block, 64);
  }
}

TEST(ColumnSums, AddsToTheTotalInOneAdditionOnAnyNumberOfThreads) {
  const int64_t blocks = 7, width = 131;
  const auto values = random_values(blocks * width, 1), before = random_values(width, 2);
  for (Dtype dtype : {Dtype::f32, Dtype::f64}) {
    for (int threads = 1; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      Tensor partials = make_tensor(device, {blocks, width}, dtype, values);
      Tensor total = make_tensor(device, {width}, Dtype::f32, before);
      add_column_sums(device, partials, total);
      const auto rounded = values_of(partials);
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; ++b) {
          const double x = rounded[static_cast<size_t>(b * width + c)];
          sum = dtype == Dtype::f32 ? static_cast<float>(sum + x) : sum + x;
        }
        const float start = static_cast<float>(before[static_cast<size_t>(c)]);
        ASSERT_EQ(total.data<float>()[c], static_cast<float>(start + sum)) << "column " << c;
      }
    }
  }
}

TEST(ColumnSums, RefusesATotalOfAnotherWidth) {
  Device device;
  Tensor partials = Tensor::zeros(device, {2, 5}, Dtype::f32);
  Tensor total = Tensor::zeros(device, {4}, Dtype::f32);
  EXPECT_THROW(add_column_sums(device, partials, total), Error);
}

}  // namespace
}  // namespace shoestring
