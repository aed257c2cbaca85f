#include "core/ops/split_latent.h"

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int64_t latent = 13, rotated = 6, tokens = 41, width = latent + rotated;

struct Case {
  Device device;
  Stream stream = Stream::immediate(device);
  SplitLatent::Attributes attributes;
  Tensor positions, x;
  SplitLatent::Saved saved;

  explicit Case(Dtype dtype, int threads = 2)
      : device(DeviceKind::cpu, 0, threads),
        attributes{.table = make_rope_table(device, {}, rotated, 16),
                   .latent = latent,
                   .rotated = rotated} {
    std::vector<int32_t> ids;
    for (int32_t t = 0; t < tokens; ++t) ids.push_back(t * 5 % 16);
    positions = make_ids(device, ids);
    x = make_tensor(device, {tokens, width}, dtype, random_values(tokens * width, 1));
  }
  Tensors<2> run() { return SplitLatent::forward(stream, attributes, {x, positions}, saved); }
};

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

// A copy of the latent and the op rope, with interleaved pairs, on the rest; backward the other way
// round.
TEST(SplitLatent, EqualsItsUnfusedDefinition) {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    Case c(dtype);
    const auto y = c.run();
    EXPECT_EQ(values_of(y[0]), columns(c.x, 0, latent));
    const Rope::Attributes rope{.table = c.attributes.table,
                                .heads = 1,
                                .head_dim = rotated,
                                .rotated = rotated,
                                .interleaved = true};
    Rope::Saved rope_saved;
    Tensor part = make_tensor(c.device, {tokens, rotated}, dtype, columns(c.x, latent, width));
    expect_same_bits(y[1], Rope::forward(c.stream, rope, {part, c.positions}, rope_saved)[0],
                     "key");
    const Tensors<2> dy = {
        make_tensor(c.device, {tokens, latent}, dtype, random_values(tokens * latent, 2)),
        make_tensor(c.device, {tokens, rotated}, dtype, random_values(tokens * rotated, 3))};
    const auto dx = SplitLatent::grad_input(c.stream, c.attributes, c.saved, dy);
    EXPECT_EQ(columns(dx[0], 0, latent), values_of(dy[0]));
    EXPECT_EQ(columns(dx[0], latent, width),
              values_of(Rope::grad_input(c.stream, rope, rope_saved, {dy[1]})[0]));
    EXPECT_FALSE(dx[1]);
  }
}

TEST(SplitLatent, MissingGradientsAreZero) {
  Case c(Dtype::bf16);
  const auto y = c.run();
  const auto no_key = SplitLatent::grad_input(c.stream, c.attributes, c.saved, {y[0], Tensor()});
  EXPECT_EQ(columns(no_key[0], 0, latent), values_of(y[0]));
  for (double v : columns(no_key[0], latent, width)) ASSERT_EQ(v, 0);
  const auto no_latent = SplitLatent::grad_input(c.stream, c.attributes, c.saved, {Tensor(), y[1]});
  for (double v : columns(no_latent[0], 0, latent)) ASSERT_EQ(v, 0);
  EXPECT_FALSE(SplitLatent::grad_input(c.stream, c.attributes, c.saved, {})[0]);
}

TEST(SplitLatent, SameBitsOnAnyNumberOfThreads) {
  Case one(Dtype::f32, 1);
  const auto first = one.run();
  for (int threads = 2; threads <= 4; ++threads) {
    Case c(Dtype::f32, threads);
    const auto y = c.run();
    expect_same_bits(y[0], first[0], "latent");
    expect_same_bits(y[1], first[1], "key");
  }
}

TEST(SplitLatent, WrongWidthTableOrPositionIsAnError) {
  Case c(Dtype::f32);
  Case narrow(Dtype::f32);
  narrow.x = Tensor::zeros(c.device, {tokens, width - 1}, Dtype::f32);
  EXPECT_THROW(narrow.run(), Error);
  Case far(Dtype::f32);
  far.positions.data<int32_t>()[3] = 16;
  EXPECT_THROW(far.run(), Error);
  c.attributes.table = make_rope_table(c.device, {}, rotated + 2, 16);
  EXPECT_THROW(c.run(), Error);
  c.attributes.table = {};
  EXPECT_THROW(c.run(), Error);
}

}  // namespace
}  // namespace shoestring
