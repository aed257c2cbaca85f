#include "core/layers/cached_attention.h"

#include "core/check.h"
#include "tests/core/layers/layer_harness.h"

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
