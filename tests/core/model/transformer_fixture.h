#pragma once
// Small models of every family and rows of documents to run them on.

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "core/model/transformer.h"
#include "core/random.h"

namespace shoestring {

inline ModelConfig small_model() {
  return {.layers = 2,
          .hidden = 24,
          .ffn = 40,
          .heads = 4,
          .kv_heads = 2,
          .vocabulary = 50,
          .max_positions = 64};
}

// Two rows of two documents each.
inline MicroBatch some_rows(int64_t vocabulary, int64_t length = 12) {
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

inline std::vector<ModelConfig> families() {
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

}  // namespace shoestring
