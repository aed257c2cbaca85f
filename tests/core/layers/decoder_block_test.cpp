#include "core/layers/decoder_block.h"

#include <cmath>

#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

TEST(DecoderBlock, NormAddsTheDeltaAndScalesByTheRootMeanSquare) {
  constexpr int64_t d = 4, rows = 3;
  LayerHarness h({{.name = "g", .shape = {d}, .deviation = 1}}, rows);
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const NormLayer norm{.gain = h.param("g"), .epsilon = 1e-3, .delta_multiplier = 0.5};
  const Residual x{tape.leaf(h.values({rows, d}, "x"), true),
                   tape.leaf(h.values({rows, d}, "delta"), true)};
  const auto [sum, normalised] = run_norm(context, norm, x);
  const Value alone = run_sum(context, norm, x);
  for (int64_t t = 0; t < rows; ++t) {
    double square = 0;
    for (int64_t i = 0; i < d; ++i) {
      const double s = x.stream.tensor().data<double>()[t * d + i] +
                       0.5 * x.delta.tensor().data<double>()[t * d + i];
      EXPECT_NEAR(sum.tensor().data<double>()[t * d + i], s, 1e-14);
      EXPECT_EQ(alone.tensor().data<double>()[t * d + i], sum.tensor().data<double>()[t * d + i]);
      square += s * s;
    }
    for (int64_t i = 0; i < d; ++i) {
      const double want =
          sum.tensor().data<double>()[t * d + i] / std::sqrt(square / d + 1e-3) * h.weight("g")[i];
      EXPECT_NEAR(normalised.tensor().data<double>()[t * d + i], want, 1e-12);
    }
  }
  const Residual first{x.stream, Value()};
  EXPECT_EQ(run_sum(context, norm, first).tensor().raw(), x.stream.tensor().raw());
}

TEST(DecoderBlock, IsTwoNamedSegments) {
  constexpr int64_t d = 8, hd = 4, f = 6, rows = 3;
  LayerHarness h({{.name = "g1", .shape = {d}, .deviation = 0, .fill = 1},
                  {.name = "qkv", .shape = {4 * hd, d}, .deviation = 0.3},
                  {.name = "o", .shape = {d, 2 * hd}, .deviation = 0.3},
                  {.name = "g2", .shape = {d}, .deviation = 0, .fill = 1},
                  {.name = "gu", .shape = {2 * f, d}, .deviation = 0.3},
                  {.name = "down", .shape = {d, f}, .deviation = 0.3}},
                 rows);
  const RopeTable table = make_rope_table(h.device(), {}, hd, 16);
  DecoderBlock block;
  block.attention_norm.gain = h.param("g1");
  block.mlp_norm.gain = h.param("g2");
  block.attention.shape = {
      .q_heads = 2, .kv_heads = 1, .head_dim = hd, .v_head_dim = hd, .scale = 0.5};
  block.attention.qkv.weight = h.param("qkv");
  block.attention.output.weight = h.param("o");
  block.mlp.gate_up.weight = h.param("gu");
  block.mlp.down.weight = h.param("down");
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch(), .rope = &table};
  const Value x = tape.leaf(h.values({rows, d}, "x"), true);
  const Residual out = block.run(context, {x, Value()}, "layers.5.");
  EXPECT_EQ(out.stream.tensor().shape(), (Shape{rows, d}));
  ASSERT_EQ(tape.num_segments(), 2);
  EXPECT_EQ(tape.segment_name(0), "layers.5.attention");
  EXPECT_EQ(tape.segment_name(1), "layers.5.mlp");
}

}  // namespace
}  // namespace shoestring
