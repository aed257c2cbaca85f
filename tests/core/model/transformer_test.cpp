#include "core/model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/layers/cached_attention.h"
#include "core/random.h"

namespace shoestring {
namespace {

ModelConfig small_model() {
  return {.layers = 2,
          .hidden = 24,
          .ffn = 40,
          .heads = 4,
          .kv_heads = 2,
          .vocabulary = 50,
          .max_positions = 64};
}

// Two rows of two documents each.
MicroBatch some_rows(int64_t vocabulary, int64_t length = 12) {
  MicroBatch m{.sequences = 2, .length = length};
  const RandomStream random(4, "tokens");
  for (int64_t b = 0; b < 2; ++b) {
    const int64_t border = 3 + 4 * b;
    for (int64_t t = 0; t < length; ++t) {
      const auto i = static_cast<uint64_t>(b * length + t);
      m.tokens.push_back(static_cast<int32_t>(random.below(i, static_cast<uint64_t>(vocabulary))));
      m.labels.push_back(
          static_cast<int32_t>(random.below(i + 1, static_cast<uint64_t>(vocabulary))));
      m.first_key.push_back(static_cast<int32_t>(t < border ? 0 : border));
      m.positions.push_back(static_cast<int32_t>(t < border ? t : t - border));
      if (t == border - 1) m.labels.back() = -1;
    }
    m.sample_ids.push_back(static_cast<uint64_t>(b));
    m.sources.push_back(0);
  }
  m.valid_labels = 2 * length - 2;
  return m;
}

// One model with its store, run on one micro-batch.
class Harness {
 public:
  // In f64 one thread: thousands of passes too small to share.
  Harness(const ModelConfig& config, Dtype dtype)
      : device_(DeviceKind::cpu, 0, dtype == Dtype::f64 ? 1 : 0),
        store_(device_, parameters_of(config, whole_model(config)), dtype),
        source_(store_),
        model_(config, store_, whole_model(config)) {
    store_.initialise(1);
  }
  double loss(const MicroBatch& rows, const LossOptions& options = {}) {
    const BatchTensors batch = to_device(device_, rows);
    Tape tape(stream_, source_, Tape::Mode::inference);
    LayerContext context{.tape = tape, .batch = batch};
    return total(context, options);
  }
  enum class Form { fused, split };
  // Runs forward and backward; the gradients are in the store.
  double train(const MicroBatch& rows, Recompute recompute, Form form,
               const LossOptions& options = {}) {
    store_.zero_gradients();
    const BatchTensors batch = to_device(device_, rows);
    Tape tape(stream_, source_, Tape::Mode::training);
    LayerContext context{.tape = tape, .batch = batch, .recompute = recompute};
    const double loss = total(context, options);
    held_ = device_.ledger().current(MemoryKind::activations);
    if (form == Form::fused) {
      tape.backward();
    } else {
      tape.backward_input();
      owed_ = device_.ledger().current(MemoryKind::activations);
      tape.backward_weight();
    }
    return loss;
  }
  std::vector<std::byte> gradient_bytes() {
    std::vector<std::byte> all;
    for (const Param& p : store_.params()) {
      const Tensor g = store_.gradient(p);
      all.insert(all.end(), g.raw(), g.raw() + g.bytes());
    }
    return all;
  }
  ParamStore& store() { return store_; }
  Transformer& model() { return model_; }
  StoreSource& source() { return source_; }
  Stream& stream() { return stream_; }
  Device& device() { return device_; }
  int64_t held() const { return held_; }  // activations after the forward pass
  int64_t owed() const { return owed_; }  // and after the input phase

 private:
  // What is trained: the loss and the prediction modules' share.
  double total(LayerContext& context, LossOptions options) {
    std::vector<PredictionResult> predictions;
    options.predictions = &predictions;
    double sum = model_.run(context, options).loss_sum;
    const MtpConfig& mtp = model_.config().mtp;
    EXPECT_EQ(static_cast<int64_t>(predictions.size()), mtp.depth);
    for (const PredictionResult& p : predictions) {
      sum += mtp.weight / static_cast<double>(mtp.depth) * p.loss_sum;
    }
    return sum;
  }

  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ParamStore store_;
  StoreSource source_;
  Transformer model_;
  int64_t held_ = 0, owed_ = 0;
};

std::vector<ModelConfig> families() {
  ModelConfig llama = small_model();
  ModelConfig qwen2 = small_model();
  qwen2.qkv_bias = true;
  qwen2.tied_embeddings = true;
  ModelConfig qwen3 = small_model();
  qwen3.qk_norm = true;
  qwen3.head_dim = 8;
  qwen3.window = 5;
  ModelConfig scaled = small_model();
  scaled.embedding_multiplier = 2;
  scaled.residual_multiplier = 0.5;
  scaled.output_multiplier = 0.7;
  scaled.attention_scale = 0.3;
  ModelConfig latent = small_model();
  latent.mla = {.kv_latent = 10, .q_latent = 12, .nope_dim = 6, .rope_dim = 4, .v_dim = 5};
  latent.rope = {.scaling = "yarn",
                 .factor = 4,
                 .original_max_positions = 16,
                 .mscale = 1,
                 .mscale_all_dim = 0.7};
  latent.mtp = {.depth = 2, .weight = 0.3};
  ModelConfig uncompressed = latent;
  uncompressed.mla.q_latent = 0;
  uncompressed.window = 5;
  uncompressed.mtp.depth = 0;
  ModelConfig predicting = scaled;
  predicting.tied_embeddings = true;
  predicting.mtp = {.depth = 1, .weight = 0.7};
  // Wide router weights: no probe of a derivative may change who is chosen.
  ModelConfig mixtral = small_model();
  mixtral.init.hidden = 0.3;
  mixtral.moe = {.experts = 6, .chosen = 2, .ffn = 16};
  ModelConfig sparse = small_model();  // the router of DeepSeek-V3
  sparse.layers = 3;
  sparse.init.hidden = 0.3;
  sparse.moe = {.experts = 8,
                .chosen = 3,
                .ffn = 12,
                .shared = 1,
                .first_dense = 1,
                .scores = "sigmoid",
                .groups = 4,
                .groups_chosen = 2,
                .scaling = 2.5};
  // The look-alike of DeepSeek-V3, its prediction module sparse too.
  ModelConfig deepseek = sparse;
  deepseek.mla = latent.mla;
  deepseek.mtp = {.depth = 1, .weight = 0.3};
  return {llama, qwen2, qwen3, scaled, latent, uncompressed, predicting, mixtral, sparse, deepseek};
}

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
