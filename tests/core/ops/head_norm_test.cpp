#include "core/ops/head_norm.h"

#include <cstring>

#include "core/ops/rms_norm.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// A head is a row: [T, heads * head_dim] of one op is [T * heads, head_dim] of the other, whose
// gradients are tested against complex steps.
TEST(HeadNorm, IsRmsNormOverEachHead) {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    for (int threads = 1; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      Stream stream = Stream::immediate(device);
      const int64_t tokens = 37, heads = 3, head_dim = 20, n = tokens * heads * head_dim;
      const Shape wide{tokens, heads * head_dim}, tall{tokens * heads, head_dim};
      Tensor x = make_tensor(device, wide, dtype, random_values(n, 1));
      Tensor dy = make_tensor(device, wide, dtype, random_values(n, 2));
      Tensor gain = make_tensor(device, {head_dim}, dtype, random_values(head_dim, 3));
      Tensor dgain = Tensor::zeros(device, {head_dim}, Dtype::f32);
      Tensor expected_dgain = Tensor::zeros(device, {head_dim}, Dtype::f32);
      HeadNorm::Saved saved;
      RmsNorm::Saved rms_saved;
      const auto y = HeadNorm::forward(stream, {.eps = 1e-6}, {x}, {gain}, saved);
      const auto dx = HeadNorm::grad_input(stream, {}, saved, {gain}, {dy}, {dgain});
      const auto expected =
          RmsNorm::forward(stream, {.eps = 1e-6}, {x.reshape(tall), Tensor()}, {gain}, rms_saved);
      const auto expected_dx = RmsNorm::grad_input(stream, {}, rms_saved, {gain},
                                                   {Tensor(), dy.reshape(tall)}, {expected_dgain});
      EXPECT_EQ(y[0].shape(), wide);
      expect_same_bits(y[0].reshape(tall), expected[1], "y");
      expect_same_bits(dx[0].reshape(tall), expected_dx[0], "dx");
      expect_same_bits(dgain, expected_dgain, "dgain");
      EXPECT_NE(values_of(dgain), std::vector<double>(static_cast<size_t>(head_dim), 0.0));
    }
  }
}

TEST(HeadNorm, NoGradientNoWork) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor gain = Tensor::zeros(device, {4}, Dtype::f32);
  EXPECT_FALSE(HeadNorm::grad_input(stream, {}, {}, {gain}, {Tensor()}, {gain})[0]);
}

TEST(HeadNorm, RefusesColumnsThatAreNoMultipleOfTheHead) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor x = Tensor::zeros(device, {3, 10}, Dtype::f32);
  Tensor gain = Tensor::zeros(device, {4}, Dtype::f32);
  HeadNorm::Saved saved;
  EXPECT_THROW(HeadNorm::forward(stream, {}, {x}, {gain}, saved), Error);
}

}  // namespace
}  // namespace shoestring
