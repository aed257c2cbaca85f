#include "core/model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/layers/cached_attention.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

// In f64 every parameter's gradient equals central differences of the loss.
TEST(Transformer, GradientsEqualCentralDifferencesForEveryFamily) {
  for (const ModelConfig& config : families()) {
    Harness h(config, Dtype::f64);
    const MicroBatch rows = some_rows(config.vocabulary);
    const LossOptions options{.loss_scale = 1.0, .z_loss = 0};
    h.train(rows, Recompute::none, Harness::Form::fused, options);
    const RandomStream random(8, "probe");
    uint64_t draw = 0;
    for (const Param& p : h.store().params()) {
      const Tensor weight = h.store().weight(p), gradient = h.store().gradient(p);
      for (int probe = 0; probe < 6; ++probe) {
        const auto i =
            static_cast<int64_t>(random.below(draw++, static_cast<uint64_t>(p.elements)));
        double& w = weight.data<double>()[i];
        const double at = w, step = 1e-5;
        w = at + step;
        const double up = h.loss(rows);
        w = at - step;
        const double down = h.loss(rows);
        w = at;
        EXPECT_NEAR(gradient.data<double>()[i], (up - down) / (2 * step), 2e-6)
            << p.info.name << "[" << i << "]";
      }
    }
  }
}

TEST(Transformer, EveryRecomputePolicyAndPhaseFormIsBitEqual) {
  for (const ModelConfig& config : families()) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      Harness h(config, dtype);
      const MicroBatch rows = some_rows(config.vocabulary);
      const double loss = h.train(rows, Recompute::none, Harness::Form::fused);
      const std::vector<std::byte> gradients = h.gradient_bytes();
      for (Recompute r : {Recompute::none, Recompute::swiglu, Recompute::norms,
                          Recompute::attention, Recompute::block}) {
        for (auto form : {Harness::Form::fused, Harness::Form::split}) {
          EXPECT_EQ(h.train(rows, r, form), loss);
          EXPECT_TRUE(h.gradient_bytes() == gradients)
              << "policy " << static_cast<int>(r) << " " << name_of(dtype);
        }
      }
    }
  }
}

TEST(Transformer, PoliciesHoldLessAndTheInputPhaseLetsGo) {
  ModelConfig config = small_model();
  config.layers = 4;
  Harness h(config, Dtype::f32);
  const MicroBatch rows = some_rows(config.vocabulary, 32);
  std::vector<int64_t> held;
  for (Recompute r : {Recompute::none, Recompute::swiglu, Recompute::norms, Recompute::attention,
                      Recompute::block}) {
    h.train(rows, r, Harness::Form::split);
    held.push_back(h.held());
    if (r == Recompute::none) {
      EXPECT_LT(h.owed(), h.held());
    }
  }
  EXPECT_LT(held[1], held[0]);
  EXPECT_LT(held[2], held[1]);
  EXPECT_LT(held[3], held[0]);
  EXPECT_LT(held[4], held[2]);
  EXPECT_LT(held[4], held[3]);
  EXPECT_EQ(h.device().ledger().current(MemoryKind::activations), 0);
}

// What statistics say of a block is what the block after it receives, and asking changes no bit.
TEST(Transformer, StatisticsAreThoseOfTheBlocksOutputs) {
  ModelConfig config = small_model();
  config.residual_multiplier = 0.5;
  Harness h(config, Dtype::f32);
  const MicroBatch rows = some_rows(config.vocabulary);
  const BatchTensors batch = to_device(h.device(), rows);
  Tape plain(h.stream(), h.source(), Tape::Mode::inference);
  LayerContext context{.tape = plain, .batch = batch};
  const Residual end = h.model().run_blocks(context, h.model().embed(context));
  EXPECT_TRUE(plain.statistics().empty());
  double squares = 0, largest = 0;
  const std::span<float> x = end.stream.tensor().span<float>(),
                         d = end.delta.tensor().span<float>();
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = static_cast<double>(x[i]) + 0.5 * static_cast<double>(d[i]);
    squares += value * value;
    largest = std::max(largest, std::abs(value));
  }
  h.train(rows, Recompute::none, Harness::Form::fused);
  const std::vector<std::byte> gradients = h.gradient_bytes();
  for (Recompute r : {Recompute::none, Recompute::swiglu, Recompute::norms, Recompute::attention,
                      Recompute::block}) {
    h.store().zero_gradients();
    Tape tape(h.stream(), h.source(), Tape::Mode::training);
    tape.want_statistics();
    LayerContext asked{.tape = tape, .batch = batch, .recompute = r};
    h.model().run(asked, {});
    tape.backward();
    EXPECT_TRUE(h.gradient_bytes() == gradients) << static_cast<int>(r);
    ASSERT_EQ(tape.statistics().size(), 2u);
    const Statistic& last = tape.statistics().at("layers.1");
    EXPECT_NEAR(last.squares, squares, 1e-12 * squares) << static_cast<int>(r);
    EXPECT_EQ(last.largest, largest) << static_cast<int>(r);
    EXPECT_EQ(last.count, static_cast<double>(x.size()));
    EXPECT_LT(tape.statistics().at("layers.0").squares, squares);  // the stream grows
  }
}

TEST(Transformer, ADocumentDoesNotSeeItsNeighbour) {
  const ModelConfig config = small_model();
  Harness h(config, Dtype::f32);
  MicroBatch rows = some_rows(config.vocabulary);
  auto losses = [&] {
    Tensor list;
    const LossOptions options{.token_losses = &list};
    h.loss(rows, options);
    return std::vector<float>(list.data<float>(), list.data<float>() + list.elements());
  };
  const std::vector<float> before = losses();
  rows.tokens[1] = (rows.tokens[1] + 1) % 50;  // in the first document of the first row
  const std::vector<float> after = losses();
  EXPECT_NE(before[1], after[1]);
  for (size_t t = 3; t < before.size(); ++t) EXPECT_EQ(before[t], after[t]) << t;
}

TEST(Transformer, CachedDecodingEqualsRunningTheWholeText) {
  for (const ModelConfig& config : families()) {
    Harness h(config, Dtype::f64);
    const std::vector<int32_t> ids = {3, 1, 4, 1, 5, 9, 2, 6};
    auto logits = [&](std::vector<int32_t> tokens, int32_t first, AttentionCore* core) {
      MicroBatch m{.sequences = 1, .length = static_cast<int64_t>(tokens.size())};
      m.tokens = tokens;
      m.labels.assign(tokens.size(), -1);
      m.first_key.assign(tokens.size(), 0);
      for (size_t i = 0; i < tokens.size(); ++i) {
        m.positions.push_back(first + static_cast<int32_t>(i));
      }
      const BatchTensors batch = to_device(h.device(), m);
      Tape tape(h.stream(), h.source(), Tape::Mode::inference);
      LayerContext context{.tape = tape, .batch = batch, .attention = core};
      const Transformer& model = h.model();
      return model.logits(context, model.run_blocks(context, model.embed(context)), {m.length - 1});
    };
    CachedAttention cache(h.device(), config.layers, 1, 16);
    cache.prefill(0);
    logits({ids.begin(), ids.begin() + 3}, 0, &cache);
    for (size_t n = 4; n <= ids.size(); ++n) {
      cache.decode({0});
      const Tensor got = logits({ids[n - 1]}, static_cast<int32_t>(n) - 1, &cache);
      const Tensor want =
          logits({ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n)}, 0, nullptr);
      for (int64_t i = 0; i < got.elements(); ++i) {
        EXPECT_NEAR(got.data<double>()[i], want.data<double>()[i], 1e-12);
      }
    }
    EXPECT_EQ(cache.length(0), static_cast<int64_t>(ids.size()));
  }
}

// The positions that a model allows cost nothing until they are used, and change no bit.
TEST(Transformer, RotatesWithRowsForTheLongestTextSoFar) {
  for (ModelConfig config : families()) {
    config.max_positions = 256;
    Harness few(config, Dtype::f32);
    config.max_positions = int64_t{1} << 22;
    Harness many(config, Dtype::f32);
    for (int64_t length : {12, 100, 7, 256}) {
      const MicroBatch rows = some_rows(config.vocabulary, length);
      EXPECT_EQ(few.train(rows, Recompute::block, Harness::Form::split),
                many.train(rows, Recompute::block, Harness::Form::split));
      EXPECT_TRUE(few.gradient_bytes() == many.gradient_bytes()) << length;
    }
    EXPECT_LT(many.device().ledger().peak(MemoryKind::other), int64_t{1} << 20);
    config.rope.theta = 500;
    many.model().set_rope(config.rope);
    few.model().set_rope(config.rope);
    const MicroBatch rows = some_rows(config.vocabulary, 20);
    EXPECT_EQ(few.loss(rows), many.loss(rows));
  }
  ModelConfig config = small_model();
  Harness short_one(config, Dtype::f32);
  MicroBatch rows = some_rows(config.vocabulary);
  rows.positions[3] = static_cast<int32_t>(config.max_positions);
  EXPECT_THROW(short_one.loss(rows), Error);
  EXPECT_NO_THROW(short_one.loss(some_rows(config.vocabulary)));
}

// A recorded step keeps its angles when a longer text runs before its backward pass.
TEST(Transformer, ALongerTextLeavesRecordedStepsAlone) {
  ModelConfig config = small_model();
  config.max_positions = 1024;
  Harness alone(config, Dtype::f32), between(config, Dtype::f32);
  const MicroBatch rows = some_rows(config.vocabulary), longer = some_rows(config.vocabulary, 300);
  alone.train(rows, Recompute::block, Harness::Form::fused);
  between.store().zero_gradients();
  const BatchTensors batch = to_device(between.device(), rows);
  Tape tape(between.stream(), between.source(), Tape::Mode::training);
  LayerContext context{.tape = tape, .batch = batch, .recompute = Recompute::block};
  between.model().run(context, {});
  between.loss(longer);
  tape.backward();
  EXPECT_TRUE(alone.gradient_bytes() == between.gradient_bytes());
}

// Training and generation see the same distribution, the output multiplier included.
TEST(Transformer, LogitsAreThoseOfTheLoss) {
  ModelConfig config = small_model();
  config.output_multiplier = 0.25;
  Harness h(config, Dtype::f64);
  h.store().initialise(3);
  const MicroBatch rows = some_rows(config.vocabulary);
  const BatchTensors batch = to_device(h.device(), rows);
  Tensor losses;
  h.loss(rows, {.token_losses = &losses});
  Tape tape(h.stream(), h.source(), Tape::Mode::inference);
  LayerContext context{.tape = tape, .batch = batch};
  std::vector<int64_t> all(rows.tokens.size());
  std::iota(all.begin(), all.end(), 0);
  const Tensor logits =
      h.model().logits(context, h.model().run_blocks(context, h.model().embed(context)), all);
  for (size_t t = 0; t < all.size(); ++t) {
    if (rows.labels[t] < 0) continue;
    const double* row = logits.data<double>() + static_cast<int64_t>(t) * logits.columns();
    double sum = 0;
    for (int64_t i = 0; i < config.vocabulary; ++i) sum += std::exp(row[i]);
    EXPECT_NEAR(losses.data<float>()[t], std::log(sum) - row[rows.labels[t]], 1e-6) << t;
  }
}

TEST(Transformer, CutsCoverTheModel) {
  const ModelConfig config = small_model();
  const auto chunks = cut(config, {1, 0, 1});
  ASSERT_EQ(chunks.size(), 3u);
  int64_t elements = 0;
  for (const Chunk& c : chunks) {
    for (const ParamInfo& info : parameters_of(config, c)) elements += info.shape.elements();
  }
  EXPECT_EQ(elements, count_parameters(config).total);
  EXPECT_THROW(cut(config, {1, 2}), Error);
}

TEST(Transformer, InitialDeviationsFollowTheClasses) {
  ModelConfig config = small_model();
  config.init = {.embedding = 0.5, .hidden = 0.1, .head = 0.3};
  config.lr_multipliers.hidden = 0.25;
  for (const ParamInfo& info : parameters_of(config, whole_model(config))) {
    if (info.name == "embedding.weight") {
      EXPECT_EQ(info.deviation, 0.5);
    }
    if (info.name == "head.weight") {
      EXPECT_EQ(info.deviation, 0.3);
    }
    if (info.name == "layers.0.mlp.down.weight") {
      EXPECT_DOUBLE_EQ(info.deviation, 0.1 / std::sqrt(4.0));
      EXPECT_EQ(info.lr_multiplier, 0.25);
    }
    if (info.param_class == ParamClass::gain) {
      EXPECT_FALSE(info.decay);
      EXPECT_EQ(info.fill, 1);
    }
  }
}

}  // namespace
}  // namespace shoestring
