#include "core/ops/latent_heads.h"

#include "core/ops/latent_heads_reference.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// Widths that fill vectors, end within one, and fall short of one.
const LatentHeads::Attributes sizes[] = {{.heads = 3, .nope = 7, .rope = 6, .value = 5},
                                         {.heads = 4, .nope = 32, .rope = 16, .value = 24},
                                         {.heads = 1, .nope = 2, .rope = 34, .value = 1}};
constexpr int64_t tokens = 29;

struct Rows {
  std::vector<double> up, key, k, v;
  explicit Rows(const LatentHeads::Attributes& a)
      : up(random_values(tokens * a.heads * (a.nope + a.value), 1)),
        key(random_values(tokens * a.rope, 2)),
        k(random_values(tokens * a.heads * a.qk(), 3)),
        v(random_values(tokens * a.heads * a.value, 4)) {}
};

template <class S>
std::vector<S> both(const LatentHeads::Attributes& a, const std::vector<S>& in, bool backward) {
  const int64_t up = a.heads * (a.nope + a.value), kv = a.heads * (a.qk() + a.value);
  const int64_t from = backward ? kv : up + a.rope, to = backward ? up + a.rope : kv;
  const int64_t cut = backward ? a.heads * a.qk() : up;
  std::vector<S> out(static_cast<size_t>(tokens * to));
  for (int64_t t = 0; t < tokens; ++t) {
    const S* row = in.data() + t * from;
    S* result = out.data() + t * to;
    if (backward) {
      reference::latent_heads_row_gradient(a, row, row + cut, result, result + up);
    } else {
      reference::latent_heads_row(a, row, row + cut, result, result + a.heads * a.qk());
    }
  }
  return out;
}

// [first row ; second row] of each token.
std::vector<double> side_by_side(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result;
  const size_t x = a.size() / tokens, y = b.size() / tokens;
  for (size_t t = 0; t < tokens; ++t) {
    result.insert(result.end(), a.begin() + static_cast<std::ptrdiff_t>(t * x),
                  a.begin() + static_cast<std::ptrdiff_t>((t + 1) * x));
    result.insert(result.end(), b.begin() + static_cast<std::ptrdiff_t>(t * y),
                  b.begin() + static_cast<std::ptrdiff_t>((t + 1) * y));
  }
  return result;
}

TEST(LatentHeads, ReferenceGradientByComplexStep) {
  const LatentHeads::Attributes& a = sizes[0];
  const Rows rows(a);
  const auto dy = side_by_side(rows.k, rows.v);
  expect_complex_step(
      [&](const std::vector<Complex>& x) { return weighted_sum(both(a, x, false), dy); },
      side_by_side(rows.up, rows.key), both(a, dy, true), "up and key");
}

TEST(LatentHeads, AgreesWithTheReferenceInEveryType) {
  for (const LatentHeads::Attributes& a : sizes) {
    const Rows rows(a);
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      Device device(DeviceKind::cpu, 0, 2);
      Stream stream = Stream::immediate(device);
      NothingSaved saved;
      const auto tensor = [&](const std::vector<double>& values) {
        const auto n = static_cast<int64_t>(values.size());
        return make_tensor(device, {tokens, n / tokens}, dtype, values);
      };
      const Tensor up = tensor(rows.up), key = tensor(rows.key);
      const auto y = LatentHeads::forward(stream, a, {up, key}, saved);
      EXPECT_EQ(side_by_side(values_of(y[0]), values_of(y[1])),
                both(a, side_by_side(values_of(up), values_of(key)), false));
      const Tensor dk = tensor(rows.k), dv = tensor(rows.v);
      const auto dx = LatentHeads::grad_input(stream, a, saved, {dk, dv});
      const auto expected = both(a, side_by_side(values_of(dk), values_of(dv)), true);
      const auto all = tensor(side_by_side(values_of(dx[0]), values_of(dx[1])));
      // One rounding of the sum over heads; the sum itself is f32.
      expect_near(all, expected, {.roundings = 1, .absolute = dtype == Dtype::f64 ? 1e-14 : 1e-5},
                  "dup and dkey");
    }
  }
}

TEST(LatentHeads, MissingGradientsAreZero) {
  const LatentHeads::Attributes& a = sizes[1];
  Device device;
  Stream stream = Stream::immediate(device);
  NothingSaved saved;
  const Rows rows(a);
  const Tensor dk = make_tensor(device, {tokens, a.heads * a.qk()}, Dtype::f32, rows.k);
  const Tensor dv = make_tensor(device, {tokens, a.heads * a.value}, Dtype::f32, rows.v);
  const auto zero_k = Tensor::zeros(device, dk.shape(), Dtype::f32);
  const auto zero_v = Tensor::zeros(device, dv.shape(), Dtype::f32);
  const auto only_k = LatentHeads::grad_input(stream, a, saved, {dk, Tensor()});
  const auto only_v = LatentHeads::grad_input(stream, a, saved, {Tensor(), dv});
  const auto with_v = LatentHeads::grad_input(stream, a, saved, {dk, zero_v});
  const auto with_k = LatentHeads::grad_input(stream, a, saved, {zero_k, dv});
  for (size_t i = 0; i < 2; ++i) {
    expect_same_bits(only_k[i], with_v[i], "without dv");
    expect_same_bits(only_v[i], with_k[i], "without dk");
  }
  EXPECT_FALSE(LatentHeads::grad_input(stream, a, saved, {})[0]);
}

TEST(LatentHeads, SameBitsOnAnyNumberOfThreads) {
  const LatentHeads::Attributes& a = sizes[1];
  const Rows rows(a);
  Device keep;
  Tensor first;
  for (int threads = 1; threads <= 4; ++threads) {
    Device device(DeviceKind::cpu, 0, threads);
    Stream stream = Stream::immediate(device);
    NothingSaved saved;
    const auto dx = LatentHeads::grad_input(
        stream, a, saved,
        {make_tensor(device, {tokens, a.heads * a.qk()}, Dtype::bf16, rows.k),
         make_tensor(device, {tokens, a.heads * a.value}, Dtype::bf16, rows.v)});
    if (threads == 1) first = make_tensor(keep, dx[1].shape(), Dtype::bf16, values_of(dx[1]));
    expect_same_bits(dx[1], first, "dkey");
  }
}

TEST(LatentHeads, WrongShapesAreErrors) {
  const LatentHeads::Attributes& a = sizes[0];
  Device device;
  Stream stream = Stream::immediate(device);
  NothingSaved saved;
  const Tensor up = Tensor::zeros(device, {2, a.heads * (a.nope + a.value)}, Dtype::f32);
  const Tensor key = Tensor::zeros(device, {2, a.rope + 1}, Dtype::f32);
  EXPECT_THROW(LatentHeads::forward(stream, a, {up, key}, saved), Error);
  EXPECT_THROW(LatentHeads::forward(stream, a, {key, key}, saved), Error);
  EXPECT_THROW(LatentHeads::grad_input(stream, a, saved, {up, Tensor()}), Error);
}

}  // namespace
}  // namespace shoestring
