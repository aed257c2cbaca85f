#include "core/layers/attention.h"

#include "core/ops/attention_reference.h"
#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

// Notes what the seam is handed and answers with v, for each query head that reads it.
class NotingCore : public AttentionCore {
 public:
  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor&) override {
    seen = shape;
    q_shape = q.tensor().shape();
    k_shape = k.tensor().shape();
    const Tensor o(tape.stream().device(), q_shape, Dtype::f64);
    const int64_t width = v.tensor().columns(), times = q_shape.columns() / width;
    for (int64_t i = 0; i < o.elements(); ++i) {
      const int64_t row = i / (width * times), column = i % width;
      o.data<double>()[i] = v.tensor().data<double>()[row * width + column];
    }
    return tape.leaf(o, false);
  }
  AttentionShape seen;
  Shape q_shape, k_shape;
};

TEST(AttentionLayer, HandsTheSeamSplitHeadsAndMultipliesItsAnswer) {
  constexpr int64_t d = 8, hd = 4, rows = 3;  // 2 query heads, 1 key and value head
  LayerHarness h({{.name = "qkv", .shape = {4 * hd, d}, .deviation = 1},
                  {.name = "o", .shape = {d, 2 * hd}, .deviation = 1}},
                 rows);
  const RopeTable table = make_rope_table(h.device(), {}, hd, 16);
  Tape tape = h.tape();
  NotingCore core;
  LayerContext context{.tape = tape, .batch = h.batch(), .rope = &table, .attention = &core};
  AttentionLayer layer;
  layer.shape = {.q_heads = 2,
                 .kv_heads = 1,
                 .head_dim = hd,
                 .v_head_dim = hd,
                 .scale = 0.5,
                 .window = 7,
                 .layer = 3};
  layer.qkv.weight = h.param("qkv");
  layer.output.weight = h.param("o");
  const Value x = tape.leaf(h.values({rows, d}, "x"), true);
  const Tensor y = layer.run(context, x).tensor();
  EXPECT_EQ(core.seen.batch, 1);
  EXPECT_EQ(core.seen.length, rows);
  EXPECT_EQ(core.seen.window, 7);
  EXPECT_EQ(core.seen.layer, 3);
  EXPECT_EQ(core.q_shape, (Shape{rows, 2 * hd}));
  EXPECT_EQ(core.k_shape, (Shape{rows, hd}));
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t out = 0; out < d; ++out) {
      double want = 0;
      for (int64_t j = 0; j < hd; ++j) {
        double v = 0;  // the last head of the fused product
        for (int64_t i = 0; i < d; ++i) {
          v += x.tensor().data<double>()[t * d + i] * h.weight("qkv")[(3 * hd + j) * d + i];
        }
        want += v * (h.weight("o")[out * 2 * hd + j] + h.weight("o")[out * 2 * hd + hd + j]);
      }
      EXPECT_NEAR(y.data<double>()[t * d + out], want, 1e-11);
    }
  }
}

TEST(LocalAttention, IsTheOp) {
  LayerHarness h({{.name = "unused", .shape = {1}}}, 6);
  Tape tape = h.tape();
  const AttentionShape shape{.batch = 1,
                             .length = 6,
                             .q_heads = 2,
                             .kv_heads = 1,
                             .head_dim = 4,
                             .v_head_dim = 4,
                             .scale = 0.5};
  const Value q = tape.leaf(h.values({6, 8}, "q"), true),
              k = tape.leaf(h.values({6, 4}, "k"), true);
  const Value v = tape.leaf(h.values({6, 4}, "v"), true);
  const Tensor o = LocalAttention().run(tape, shape, q, k, v, h.batch().first_key).tensor();
  // The first token sees itself alone.
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(o.data<double>()[i], v.tensor().data<double>()[i % 4], 1e-12);
  }
}

}  // namespace
}  // namespace shoestring
