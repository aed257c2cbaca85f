#include "core/layers/cached_attention.h"

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/ops/latent_heads.h"
#include "tests/core/layers/layer_harness.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

constexpr AttentionShape shape{.batch = 1,
                               .length = 4,
                               .q_heads = 2,
                               .kv_heads = 1,
                               .head_dim = 4,
                               .v_head_dim = 4,
                               .scale = 0.5,
                               .window = 3};

// Two sequences decoded side by side, with a window: each step equals the last row of the whole.
TEST(CachedAttention, StepsEqualTheWholeForSeveralSequences) {
  LayerHarness h({{.name = "unused", .shape = {1}}}, 8);
  Tape tape = h.tape(Tape::Mode::inference);
  CachedAttention cache(h.device(), 1, 2, 8);
  const Tensor q = h.values({16, 8}, "q"), k = h.values({16, 4}, "k"), v = h.values({16, 4}, "v");
  const Tensor zeros = Tensor::zeros(h.device(), {1, 8}, Dtype::i32);
  auto part = [](const Tensor& t, int64_t sequence, int64_t begin, int64_t end) {
    return Value(t.rows(8 * sequence + begin, 8 * sequence + end));
  };
  const int64_t prompt[] = {4, 2};
  for (int64_t s = 0; s < 2; ++s) {
    AttentionShape whole = shape;
    whole.length = prompt[s];
    cache.prefill(s);
    cache.run(tape, whole, part(q, s, 0, prompt[s]), part(k, s, 0, prompt[s]),
              part(v, s, 0, prompt[s]),
              zeros.reshape({8}).rows(0, prompt[s]).reshape({1, prompt[s]}));
  }
  for (int64_t step = 0; step < 3; ++step) {
    Tensor one_q(h.device(), {2, 8}, Dtype::f64), one_k(h.device(), {2, 4}, Dtype::f64);
    Tensor one_v(h.device(), {2, 4}, Dtype::f64);
    for (int64_t s = 0; s < 2; ++s) {
      const int64_t at = 8 * s + prompt[s] + step;
      std::copy_n(q.data<double>() + at * 8, 8, one_q.data<double>() + s * 8);
      std::copy_n(k.data<double>() + at * 4, 4, one_k.data<double>() + s * 4);
      std::copy_n(v.data<double>() + at * 4, 4, one_v.data<double>() + s * 4);
    }
    AttentionShape step_shape = shape;
    step_shape.batch = 2;
    step_shape.length = 1;
    cache.decode({0, 1});
    const Tensor got =
        cache.run(tape, step_shape, Value(one_q), Value(one_k), Value(one_v), zeros).tensor();
    for (int64_t s = 0; s < 2; ++s) {
      const int64_t n = prompt[s] + step + 1;
      AttentionShape whole = shape;
      whole.length = n;
      const Tensor want = LocalAttention()
                              .run(tape, whole, part(q, s, 0, n), part(k, s, 0, n),
                                   part(v, s, 0, n), zeros.reshape({8}).rows(0, n).reshape({1, n}))
                              .tensor();
      for (int64_t i = 0; i < 8; ++i) {
        EXPECT_NEAR(got.data<double>()[s * 8 + i], want.data<double>()[(n - 1) * 8 + i], 1e-12);
      }
    }
  }
  EXPECT_EQ(cache.length(0), 7);
  EXPECT_EQ(cache.length(1), 5);
  EXPECT_EQ(cache.bytes(), 2 * 2 * 8 * 4 * 8);
}

// Latent attention of two sequences with prompts of different lengths.
constexpr int64_t heads = 5, nope = 3, rope = 4, value = 6, latent = 7, capacity = 12;

struct LatentCase {
  Device& device;
  Dtype dtype;
  Tensor q, c, key, up;  // of `capacity` tokens a sequence

  LatentCase(LayerHarness& h, Dtype dtype) : device(h.device()), dtype(dtype) {
    Stream stream = Stream::immediate(device);
    const auto make = [&](int64_t rows, int64_t columns, std::string_view name) {
      return convert(stream, h.values({rows, columns}, name), dtype);
    };
    q = make(2 * capacity, heads * (nope + rope), "q");
    c = make(2 * capacity, latent, "latent");
    key = make(2 * capacity, rope, "key");
    up = make(heads * (nope + value), latent, "up");
  }
  // The given tokens, those of one sequence or one of each.
  LatentAttention tokens(const std::vector<int64_t>& rows, int64_t batch) const {
    const auto pick = [&](const Tensor& from) {
      Tensor to(device, {static_cast<int64_t>(rows.size()), from.columns()}, dtype);
      for (size_t i = 0; i < rows.size(); ++i) {
        const Tensor row = from.rows(rows[i], rows[i] + 1);
        std::copy_n(row.raw(), row.bytes(), to.raw() + i * row.bytes());
      }
      return Value(to);
    };
    return {.shape = {.batch = batch,
                      .length = static_cast<int64_t>(rows.size()) / batch,
                      .q_heads = heads,
                      .kv_heads = heads,
                      .head_dim = nope + rope,
                      .v_head_dim = value,
                      .scale = 0.4,
                      .window = 9},
            .nope = nope,
            .rope = rope,
            .q = pick(q),
            .latent = pick(c),
            .key = pick(key),
            .up = up};
  }
  // Keys and values of all heads, and the plain attention over them or what `core` makes of them.
  Tensor plain(Tape& tape, const LatentAttention& a, AttentionCore& core) const {
    Tensor raised(device, {a.latent.tensor().rows(), up.shape()[0]}, dtype);
    matmul(device, raised, a.latent.tensor(), up, {.transpose_b = true});
    const auto [k, v] = apply<LatentHeads>(
        tape, {.heads = heads, .nope = nope, .rope = rope, .value = value}, {Value(raised), a.key});
    const int64_t n = a.shape.length;
    const Tensor zeros = Tensor::zeros(device, {1, n}, Dtype::i32);
    return core.run(tape, a.shape, a.q, k, v, zeros).tensor();
  }
};

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> list;
  for (int64_t i = begin; i < end; ++i) list.push_back(i);
  return list;
}

void expect_absorbed_is_plain(Dtype dtype, double tolerance) {
  LayerHarness h({{.name = "unused", .shape = {1}}}, 4);
  const LatentCase x(h, dtype);
  Tape tape = h.tape(Tape::Mode::inference);
  CachedAttention cache(h.device(), 1, 2, capacity);
  LocalAttention local;
  const int64_t prompt[] = {7, 3};
  for (int64_t s = 0; s < 2; ++s) {
    cache.prefill(s);
    const auto a = x.tokens(range(s * capacity, s * capacity + prompt[s]), 1);
    EXPECT_FALSE(cache.run_latent(tape, a));  // a prompt goes on in the plain form
    const Tensor got = x.plain(tape, a, cache), want = x.plain(tape, a, local);
    EXPECT_EQ(testing::values_of(got), testing::values_of(want));
  }
  for (int64_t step = 0; step < 5; ++step) {
    cache.decode({0, 1});
    const auto a = x.tokens({prompt[0] + step, capacity + prompt[1] + step}, 2);
    const Value answer = cache.run_latent(tape, a);
    ASSERT_TRUE(answer);
    const auto got = testing::values_of(answer.tensor());
    for (int64_t s = 0; s < 2; ++s) {
      const int64_t n = prompt[s] + step + 1;
      const auto want = testing::values_of(
          x.plain(tape, x.tokens(range(s * capacity, s * capacity + n), 1), local));
      for (int64_t i = 0; i < heads * value; ++i) {
        ASSERT_NEAR(got[static_cast<size_t>(s * heads * value + i)],
                    want[static_cast<size_t>((n - 1) * heads * value + i)], tolerance)
            << "step " << step << ", sequence " << s;
      }
    }
  }
  EXPECT_EQ(cache.length(0), 12);
  EXPECT_EQ(cache.length(1), 8);
  const auto numbers = 2 * capacity * (latent + rope);  // and nothing else
  EXPECT_EQ(cache.bytes(), numbers * static_cast<int64_t>(size_of(dtype)));
}

TEST(CachedAttention, TheAbsorbedFormOverLatentsIsThePlainForm) {
  expect_absorbed_is_plain(Dtype::f64, 1e-12);
  expect_absorbed_is_plain(Dtype::f32, 2e-5);
  expect_absorbed_is_plain(Dtype::bf16, 0.15);  // keys and values are not rounded in the latent
}

TEST(CachedAttention, AFullCacheAndATrainingTapeAreErrors) {
  LayerHarness h({{.name = "unused", .shape = {1}}}, 4);
  const Value q(h.values({4, 8}, "q")), k(h.values({4, 4}, "k")), v(h.values({4, 4}, "v"));
  CachedAttention small(h.device(), 1, 1, 3);
  small.prefill(0);
  Tape inference = h.tape(Tape::Mode::inference), training = h.tape();
  EXPECT_THROW(small.run(inference, shape, q, k, v, h.batch().first_key), Error);
  EXPECT_THROW(small.run(training, shape, q, k, v, h.batch().first_key), Error);
}

}  // namespace
}  // namespace shoestring
