#include "core/layers/mtp.h"

#include <cmath>

#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

Tensor ids(Device& device, const std::vector<int32_t>& values) {
  return Tensor::from(device, {static_cast<int64_t>(values.size())},
                      std::span<const int32_t>(values));
}

std::vector<int32_t> numbers(const Tensor& t) {
  return {t.data<int32_t>(), t.data<int32_t>() + t.elements()};
}

// Row one: documents of 3 and 5 tokens, the second goes on beyond the row. Row two: one of 6 that
// ends in it, and the first 2 tokens of another.
BatchTensors two_rows(Device& device) {
  return {.sequences = 2,
          .length = 8,
          .tokens = ids(device, {1, 2, 3, 11, 12, 13, 14, 15, 21, 22, 23, 24, 25, 26, 31, 32}),
          .labels = ids(device, {2, 3, -1, 12, 13, 14, 15, 16, 22, 23, 24, 25, 26, -1, 32, 33}),
          .positions = {},
          .first_key = ids(device, std::vector<int32_t>(16, 0))};
}

TEST(ShiftRows, LabelsStayInTheirRowAndDocument) {
  Device device;
  const BatchTensors batch = two_rows(device);
  const ShiftedRows one = shift_rows(device, batch, 1);
  EXPECT_EQ(numbers(one.tokens),
            (std::vector<int32_t>{2, 3, 11, 12, 13, 14, 15, 15, 22, 23, 24, 25, 26, 31, 32, 32}));
  EXPECT_EQ(numbers(one.labels),
            (std::vector<int32_t>{3, -1, -1, 13, 14, 15, 16, -1, 23, 24, 25, 26, -1, -1, 33, -1}));
  const ShiftedRows three = shift_rows(device, batch, 3);
  EXPECT_EQ(numbers(three.labels),
            (std::vector<int32_t>{-1, -1, -1, 15, 16, -1, -1, -1, 25, 26, -1, -1, -1, -1, -1, -1}));
  for (int32_t label : numbers(shift_rows(device, batch, 20).labels)) EXPECT_EQ(label, -1);
}

// Where every token has a label, as with end marks between documents, their starts tell.
TEST(ShiftRows, StaysInsideDocumentsWhoseBorderHasLabels) {
  Device device;
  BatchTensors batch;
  batch.sequences = 1;
  batch.length = 6;
  batch.tokens = ids(device, {1, 2, 0, 3, 4, 5});
  batch.labels = ids(device, {2, 0, 3, 4, 5, 6});
  batch.first_key = ids(device, {0, 0, 0, 0, 0, 0});  // attention crosses documents
  EXPECT_EQ(numbers(shift_rows(device, batch, 1).labels),
            (std::vector<int32_t>{0, 3, 4, 5, 6, -1}));
  batch.document_start = ids(device, {0, 0, 2, 2, 2, 2});
  EXPECT_EQ(numbers(shift_rows(device, batch, 1).labels),
            (std::vector<int32_t>{0, -1, 4, 5, 6, -1}));
  EXPECT_EQ(numbers(shift_rows(device, batch, 2).labels),
            (std::vector<int32_t>{-1, -1, 5, 6, -1, -1}));
}

TEST(CountAgreements, ComparesWithTheMainModelsTokenOfTheSamePlace) {
  Device device;
  const ShiftedRows shifted = shift_rows(device, two_rows(device), 1);
  std::vector<int32_t> main(16, 7), own(16, 7);
  EXPECT_EQ(count_agreements(shifted, ids(device, own), ids(device, main), 1), 10);
  main[1] = 8;  // is what position 0 is compared with
  EXPECT_EQ(count_agreements(shifted, ids(device, own), ids(device, main), 1), 9);
  own[0] = 8;
  EXPECT_EQ(count_agreements(shifted, ids(device, own), ids(device, main), 1), 10);
  own[7] = 9;  // has no label
  EXPECT_EQ(count_agreements(shifted, ids(device, own), ids(device, main), 1), 10);
}

constexpr int64_t d = 8, hd = 4, f = 6, rows = 5, vocabulary = 11;

struct Subject {
  LayerHarness harness{{{.name = "e", .shape = {vocabulary, d}, .deviation = 1},
                        {.name = "ge", .shape = {d}, .deviation = 1},
                        {.name = "gh", .shape = {d}, .deviation = 1},
                        {.name = "m", .shape = {d, 2 * d}, .deviation = 0.5},
                        {.name = "g", .shape = {d}, .deviation = 0, .fill = 1},
                        {.name = "qkv", .shape = {4 * hd, d}, .deviation = 0.3},
                        {.name = "o", .shape = {d, 2 * hd}, .deviation = 0.3},
                        {.name = "gu", .shape = {2 * f, d}, .deviation = 0.3},
                        {.name = "down", .shape = {d, f}, .deviation = 0.3}},
                       rows};
  RopeTable table = make_rope_table(harness.device(), {}, hd, 16);
  Tensor tokens = ids(harness.device(), {3, 1, 4, 1, 5});
  MtpModule module;

  Subject() {
    module.prefix = "mtp.0.";
    module.embedding = {.table = harness.param("e"), .multiplier = 2};
    module.embedding_gain = harness.param("ge");
    module.hidden_gain = harness.param("gh");
    module.projection.weight = harness.param("m");
    module.block.attention_norm.gain = harness.param("g");
    module.block.mlp_norm.gain = harness.param("g");
    module.block.attention.shape = {
        .q_heads = 2, .kv_heads = 1, .head_dim = hd, .v_head_dim = hd, .scale = 0.5};
    module.block.attention.qkv.weight = harness.param("qkv");
    module.block.attention.output.weight = harness.param("o");
    module.block.mlp.gate_up.weight = harness.param("gu");
    module.block.mlp.down.weight = harness.param("down");
    module.final_norm.gain = harness.param("g");
  }
};

// What its block is given: M [norm(embedding) ; norm(hidden)], by hand.
TEST(MtpModule, JoinsEmbeddingAndHiddenInThisOrder) {
  Subject s;
  Tape tape = s.harness.tape();
  LayerContext context{.tape = tape, .batch = s.harness.batch(), .rope = &s.table};
  const Tensor hidden = s.harness.values({rows, d}, "hidden");
  const Residual out = s.module.run(context, tape.leaf(hidden, true), s.tokens);
  // The stream that leaves the block is what entered it plus what its attention added; an output
  // product of zero leaves what entered.
  const Tensor o = s.harness.store().weight(*s.harness.param("o"));
  std::fill_n(o.data<double>(), o.elements(), 0.0);
  Tape again = s.harness.tape();
  LayerContext without{.tape = again, .batch = s.harness.batch(), .rope = &s.table};
  const Tensor entered = s.module.run(without, again.leaf(hidden, true), s.tokens).stream.tensor();
  const auto unit = [](const double* x, double factor, const double* gain, int64_t i) {
    double square = 0;
    for (int64_t j = 0; j < d; ++j) square += factor * x[j] * factor * x[j];
    return factor * x[i] / std::sqrt(square / d + 1e-6) * gain[i];
  };
  double change = 0;
  for (int64_t t = 0; t < rows; ++t) {
    const double* e = s.harness.weight("e") + s.tokens.data<int32_t>()[t] * d;
    for (int64_t i = 0; i < d; ++i) {
      const double* m = s.harness.weight("m") + i * 2 * d;
      double want = 0;
      for (int64_t j = 0; j < d; ++j) {
        want += m[j] * unit(e, 2, s.harness.weight("ge"), j);
        want += m[d + j] * unit(hidden.data<double>() + t * d, 1, s.harness.weight("gh"), j);
      }
      EXPECT_NEAR(entered.data<double>()[t * d + i], want, 1e-12);
      change += std::abs(out.stream.tensor().data<double>()[t * d + i] - want);
    }
  }
  EXPECT_GT(change, 0.1);
  ASSERT_EQ(tape.num_segments(), 3);
  EXPECT_EQ(tape.segment_name(0), "mtp.0.projection");
  EXPECT_EQ(tape.segment_name(1), "mtp.0.attention");
  EXPECT_EQ(tape.segment_name(2), "mtp.0.mlp");
}

TEST(MtpModule, EveryRecomputePolicyIsBitEqual) {
  std::vector<std::vector<double>> gradients;
  for (Recompute policy : {Recompute::none, Recompute::swiglu, Recompute::norms,
                           Recompute::attention, Recompute::block}) {
    Subject s;
    s.harness.store().zero_gradients();
    Tape tape = s.harness.tape();
    LayerContext context{
        .tape = tape, .batch = s.harness.batch(), .rope = &s.table, .recompute = policy};
    const Value hidden = tape.leaf(s.harness.values({rows, d}, "hidden"), true);
    const Residual out = s.module.run(context, hidden, s.tokens);
    const Value y = run_norm(context, s.module.final_norm, out)[1];
    tape.seed(y, s.harness.values({rows, d}, "dy"));
    tape.backward();
    std::vector<double>& all = gradients.emplace_back();
    const Tensor dx = tape.take_gradient(hidden);
    all.insert(all.end(), dx.data<double>(), dx.data<double>() + dx.elements());
    for (const Param& p : s.harness.store().params()) {
      const Tensor g = s.harness.store().gradient(p);
      all.insert(all.end(), g.data<double>(), g.data<double>() + g.elements());
    }
    EXPECT_EQ(all, gradients.front()) << static_cast<int>(policy);
  }
}

}  // namespace
}  // namespace shoestring
