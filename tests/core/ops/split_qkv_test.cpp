#include "core/ops/split_qkv.h"

#include <cstring>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t heads = 4, kv_heads = 2, head_dim = 12, tokens = 45;
constexpr int64_t width = (heads + 2 * kv_heads) * head_dim;

std::vector<int32_t> test_positions() {
  std::vector<int32_t> positions;
  for (int32_t t = 0; t < tokens; ++t) positions.push_back(t % 16);
  return positions;
}

SplitQkv::Attributes attributes_of(Device& device, bool turn, int64_t rotated) {
  SplitQkv::Attributes a{.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  a.rotated = rotated;
  if (turn) a.table = make_rope_table(device, {}, rotated > 0 ? rotated : head_dim, 16);
  return a;
}

// Columns [begin, end) of a matrix.
std::vector<double> columns(const Tensor& x, int64_t begin, int64_t end) {
  std::vector<double> result;
  const auto all = values_of(x);
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t c = begin; c < end; ++c) {
      result.push_back(all[static_cast<size_t>(t * x.columns() + c)]);
    }
  }
  return result;
}

// The fused pass is cutting, and then rope on q and k alone; backward the other way round.
TEST(SplitQkv, EqualsItsUnfusedDefinition) {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    for (int64_t rotated : {int64_t{0}, int64_t{6}}) {
      Device device(DeviceKind::cpu, 0, 2);
      Stream stream = Stream::immediate(device);
      Tensor qkv = make_tensor(device, {tokens, width}, dtype, random_values(tokens * width, 1));
      Tensor positions = make_ids(device, test_positions());
      const auto a = attributes_of(device, true, rotated);
      SplitQkv::Saved saved;
      const auto y = SplitQkv::forward(stream, a, {qkv, positions}, saved);
      Tensors<3> dy;
      const std::array<int64_t, 4> border = {0, heads, heads + kv_heads, heads + 2 * kv_heads};
      std::array<std::vector<double>, 3> expected_dx;
      for (size_t i = 0; i < 3; ++i) {
        const int64_t n = border[i + 1] - border[i], columns_here = n * head_dim;
        Tensor part = make_tensor(device, {tokens, columns_here}, dtype,
                                  columns(qkv, border[i] * head_dim, border[i + 1] * head_dim));
        dy[i] =
            make_tensor(device, part.shape(), dtype, random_values(tokens * columns_here, 2 + i));
        const Rope::Attributes rope{.table = a.table,
                                    .heads = n,
                                    .head_dim = head_dim,
                                    .rotated = rotated > 0 ? rotated : head_dim};
        Rope::Saved rope_saved;
        const auto turned = Rope::forward(stream, rope, {part, positions}, rope_saved);
        const auto back = Rope::grad_input(stream, rope, rope_saved, {dy[i]});
        expect_same_bits(y[i], i < 2 ? turned[0] : part, "part " + std::to_string(i));
        expected_dx[i] = values_of(i < 2 ? back[0] : dy[i]);
      }
      const auto dqkv = SplitQkv::grad_input(stream, a, saved, dy);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(columns(dqkv[0], border[i] * head_dim, border[i + 1] * head_dim), expected_dx[i]);
      }
    }
  }
}

TEST(SplitQkv, WithoutATableItOnlyCuts) {
  Device device(DeviceKind::cpu, 0, 3);
  Stream stream = Stream::immediate(device);
  Tensor qkv = make_tensor(device, {tokens, width}, Dtype::f32, random_values(tokens * width, 1));
  const auto a = attributes_of(device, false, 0);
  SplitQkv::Saved saved;
  const auto y = SplitQkv::forward(stream, a, {qkv, make_ids(device, test_positions())}, saved);
  EXPECT_EQ(values_of(y[0]), columns(qkv, 0, heads * head_dim));
  EXPECT_EQ(values_of(y[2]), columns(qkv, (heads + kv_heads) * head_dim, width));
  const auto dqkv = SplitQkv::grad_input(stream, a, saved, y);
  expect_same_bits(dqkv[0], qkv, "dqkv");
}

TEST(SplitQkv, MissingGradientsAreZero) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  Tensor qkv = make_tensor(device, {tokens, width}, Dtype::bf16, random_values(tokens * width, 1));
  const auto a = attributes_of(device, true, 0);
  SplitQkv::Saved saved;
  const auto y = SplitQkv::forward(stream, a, {qkv, make_ids(device, test_positions())}, saved);
  const auto dqkv = SplitQkv::grad_input(stream, a, saved, {Tensor(), Tensor(), y[2]});
  const int64_t v = (heads + kv_heads) * head_dim;
  for (double x : columns(dqkv[0], 0, v)) ASSERT_EQ(x, 0);
  EXPECT_EQ(columns(dqkv[0], v, width), values_of(y[2]));
  EXPECT_FALSE(SplitQkv::grad_input(stream, a, saved, {})[0]);
}

TEST(SplitQkv, SameBitsOnAnyNumberOfThreads) {
  Device keep(DeviceKind::cpu, 0, 1);
  Tensors<3> first;
  for (int threads = 1; threads <= 4; ++threads) {
    Device device(DeviceKind::cpu, 0, threads);
    Stream stream = Stream::immediate(device);
    Tensor qkv = make_tensor(keep, {tokens, width}, Dtype::bf16, random_values(tokens * width, 1));
    SplitQkv::Saved saved;
    const auto y = SplitQkv::forward(stream, attributes_of(device, true, 0),
                                     {qkv, make_ids(device, test_positions())}, saved);
    for (size_t i = 0; i < 3; ++i) {
      if (threads == 1) first[i] = make_tensor(keep, y[i].shape(), Dtype::bf16, values_of(y[i]));
      expect_same_bits(y[i], first[i], "part");
    }
  }
}

TEST(SplitQkv, WrongWidthTableOrPositionIsAnError) {
  Device device;
  Stream stream = Stream::immediate(device);
  SplitQkv::Saved saved;
  auto a = attributes_of(device, true, 0);
  Tensor narrow = Tensor::zeros(device, {2, width - 1}, Dtype::f32);
  Tensor good = Tensor::zeros(device, {2, width}, Dtype::f32);
  EXPECT_THROW(SplitQkv::forward(stream, a, {narrow, make_ids(device, {0, 1})}, saved), Error);
  EXPECT_THROW(SplitQkv::forward(stream, a, {good, make_ids(device, {0, 16})}, saved), Error);
  a.rotated = 6;
  EXPECT_THROW(SplitQkv::forward(stream, a, {good, make_ids(device, {0, 1})}, saved), Error);
}

}  // namespace
}  // namespace shoestring
