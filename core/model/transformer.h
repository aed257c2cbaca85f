#pragma once
// A decoder, or a pipeline chunk of one, as a list of blocks.

#include <functional>
#include <string>
#include <vector>

#include "core/layers/decoder_block.h"
#include "core/layers/mtp.h"
#include "core/model/boundaries.h"
#include "core/model/parameters.h"
#include "core/ops/head_loss.h"

namespace shoestring {

// What the loss of one micro-batch was; sums over its valid labels.
struct LossOptions {
  double loss_scale = 1;  // 1 / global valid labels: the seed of every gradient
  double z_loss = 0;      // coefficient of lse^2
  bool exact = false;
  Tensor* token_losses = nullptr;  // made on request: f32 [T], 0 where masked
  // One for each prediction module, whose losses take part with the config's weight / depth; null:
  // the modules are left out, as in evaluation and generation.
  std::vector<PredictionResult>* predictions = nullptr;
};

class Transformer {
 public:
  // `store` was built from parameters_of(config, chunk), cut as the boundaries want it, and
  // outlives the model, as they do.
  Transformer(const ModelConfig& config, ParamStore& store, const Chunk& chunk,
              const Boundaries& boundaries = {});

  const ModelConfig& config() const { return config_; }
  // Other angles for the steps that follow: a stage with longer sequences stretches the positions.
  void set_rope(const RopeConfig& rope);
  // Makes the rotary table for so many positions now, as those who know the longest sequence do: it
  // would grow when a longer one comes.
  void reserve_positions(int64_t positions) const;
  // Another lambda of the prediction modules' losses, likewise.
  void set_mtp_weight(double weight) { config_.mtp.weight = weight; }

  // tokens -> residual stream, or the stream that arrived from the chunk before.
  Residual embed(LayerContext& context) const;
  // A tape that wants statistics gets one of each block's output, "layers.3".
  Residual run_blocks(LayerContext& context, Residual x) const;
  // Cross-entropy of the next token summed over valid labels, gradients made on the way when the
  // tape records.
  HeadLoss::Result loss(LayerContext& context, const Residual& x, const LossOptions& options) const;
  // Logits of the given rows (positions in [0, T)), f32 [rows, V]: for generation and judges.
  Tensor logits(LayerContext& context, const Residual& x, const std::vector<int64_t>& rows) const;

  // embed, run_blocks and loss of a whole model.
  HeadLoss::Result run(LayerContext& context, const LossOptions& options) const;

 private:
  const RopeTable& rope_for(const BatchTensors& batch) const;
  Value run_final_norm(LayerContext& context, const Residual& x) const;
  NormLayer bind_norm(const std::string& name, ParamStore& store) const;
  void bind_block(DecoderBlock& block, int64_t index, ParamStore& store) const;
  void bind_attention(AttentionLayer& layer, int64_t index, ParamStore& store) const;
  void bind_latent_attention(DecoderBlock& block, int64_t index, ParamStore& store) const;
  void bind_edges(LinearLayer& first, LinearLayer& second) const;
  void bind_module(int64_t k, ParamStore& store);
  EmbeddingLayer bind_embedding(ParamStore& store) const;
  struct HeadRequest {
    HeadLoss::Attributes attributes;
    Tensor labels;
    Tensor* token_losses = nullptr;
    Tensor* greedy = nullptr;
  };
  // A use of the head that was counted before.
  HeadLoss::Result run_head(LayerContext& context, const Value& normalised,
                            const HeadRequest& request) const;
  std::vector<PredictionResult> predict(LayerContext& context, Value hidden,
                                        const Tensor& main_greedy,
                                        const LossOptions& options) const;

  ModelConfig config_;
  Chunk chunk_;
  Boundaries boundaries_;
  ParamStore* store_;
  // Rows up to the last position that was used: a model may allow millions. One thread runs it.
  mutable RopeTable rope_;
  std::vector<DecoderBlock> blocks_;
  std::vector<MtpModule> modules_;
  NormLayer final_norm_;
  EmbeddingLayer embedding_;
  const Param* head_ = nullptr;
};

}  // namespace shoestring
