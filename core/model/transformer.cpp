#include "core/model/transformer.h"

#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/ops/embedding.h"
#include "core/text.h"

namespace shoestring {
namespace {

// The output of a block is a sum that the next norm makes while it reads.
void tell_output(Tape& tape, const Residual& x, double multiplier, const std::string& name) {
  const Tensor delta = x.delta ? x.delta.tensor() : Tensor();
  tape.add_statistic(name,
                     statistic_of(tape.stream().device(), x.stream.tensor(), delta, multiplier));
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, ParamStore& store, const Chunk& chunk)
    : config_(config),
      chunk_(chunk),
      store_(&store),
      rope_(make_rope_table(store.device(), config.rope, config.rotated_dims(),
                            config.max_positions)) {
  blocks_.resize(static_cast<size_t>(chunk.last_block - chunk.first_block));
  for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) {
    bind_block(blocks_[static_cast<size_t>(i - chunk.first_block)], i, store);
  }
  if (chunk.embedding) embedding_ = &store.param("embedding.weight");
  if (chunk.head) {
    final_norm_ = {.gain = &store.param("final_norm.gain"),
                   .epsilon = config.norm_epsilon,
                   .delta_multiplier = config.residual_multiplier};
    head_ = &store.param(config.tied_embeddings ? "embedding.weight" : "head.weight");
  }
}

void Transformer::set_rope(const RopeConfig& rope) {
  config_.rope = rope;
  rope_ = make_rope_table(store_->device(), rope, config_.rotated_dims(), config_.max_positions);
}

void Transformer::bind_block(DecoderBlock& block, int64_t index, ParamStore& store) const {
  const ModelConfig& m = config_;
  const std::string at = cat("layers.", index, ".");
  auto norm = [&](const std::string& name) {
    return NormLayer{.gain = &store.param(at + name),
                     .epsilon = m.norm_epsilon,
                     .delta_multiplier = m.residual_multiplier};
  };
  block.attention_norm = norm("attention_norm.gain");
  block.mlp_norm = norm("mlp_norm.gain");
  AttentionLayer& a = block.attention;
  a.shape = {.q_heads = m.heads,
             .kv_heads = m.kv_heads,
             .head_dim = m.dim_of_head(),
             .v_head_dim = m.dim_of_head(),
             .scale = m.scale_of_attention(),
             .window = m.window,
             .layer = static_cast<int>(index)};
  a.norm_epsilon = m.norm_epsilon;
  a.qkv.weight = &store.param(at + "attention.qkv.weight");
  if (m.qkv_bias) a.qkv.bias = &store.param(at + "attention.qkv.bias");
  if (m.qk_norm) {
    a.q_gain = &store.param(at + "attention.q_norm.gain");
    a.k_gain = &store.param(at + "attention.k_norm.gain");
  }
  a.output.weight = &store.param(at + "attention.output.weight");
  block.mlp.gate_up.weight = &store.param(at + "mlp.gate_up.weight");
  block.mlp.down.weight = &store.param(at + "mlp.down.weight");
}

Residual Transformer::embed(LayerContext& context) const {
  check(embedding_ != nullptr, "this pipeline chunk has no embedding");
  context.tape.begin_segment("embedding");
  Value x = apply<Embedding>(context.tape, {.multiplier = config_.embedding_multiplier},
                             {Value(context.batch.tokens)}, {embedding_});
  context.tape.end_segment();
  return {x, Value()};
}

Residual Transformer::run_blocks(LayerContext& context, Residual x) const {
  context.rope = &rope_;
  const bool regions = context.recompute == Recompute::block;
  int region = -1;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (regions) {
      x = {run_sum(context, blocks_[i].attention_norm, x), Value()};
      if (region >= 0) context.tape.drop_region(region, {});
      region = context.tape.begin_region();
    }
    x = blocks_[i].run(context, std::move(x),
                       static_cast<int>(i) + static_cast<int>(chunk_.first_block));
    if (regions) context.tape.end_region(region);
    if (context.tape.wants_statistics()) {
      tell_output(context.tape, x, config_.residual_multiplier,
                  cat("layers.", static_cast<int64_t>(i) + chunk_.first_block));
    }
  }
  if (regions && region >= 0) {
    x = {run_sum(context, blocks_.back().mlp_norm, x), Value()};
    context.tape.drop_region(region, {});
  }
  return x;
}

Value Transformer::run_final_norm(LayerContext& context, const Residual& x) const {
  check(head_ != nullptr, "this pipeline chunk has no head");
  return run_norm(context, final_norm_, x)[1];
}

HeadLoss::Result Transformer::loss(LayerContext& context, const Residual& x,
                                   const LossOptions& options) const {
  Tape& tape = context.tape;
  tape.begin_segment("head");
  const Value normalised = run_final_norm(context, x);
  ParamSource& source = tape.source();
  Tensor dx, dw;
  if (tape.recording()) {
    tape.count_use(*head_);
    dw = source.gradient(*head_);
  }
  HeadLoss::Attributes attributes{.loss_scale = options.loss_scale,
                                  .logit_multiplier = config_.output_multiplier,
                                  .z_coefficient = options.z_loss,
                                  .exact = options.exact};
  HeadLoss::Result result;
  {
    const Tape::Watch watch(tape, HeadLoss::name, Phase::forward);
    result = HeadLoss::forward(
        tape.stream(), attributes,
        {.x = normalised.tensor(), .weight = source.weight(*head_), .labels = context.batch.labels},
        {.dx = tape.recording() ? &dx : nullptr,
         .dw = tape.recording() ? &dw : nullptr,
         .token_losses = options.token_losses});
  }
  if (tape.recording()) {
    tape.use_done(*head_);
    tape.record_gradient("head_loss", normalised, std::move(dx));
  }
  tape.end_segment();
  return result;
}

Tensor Transformer::logits(LayerContext& context, const Residual& x,
                           const std::vector<int64_t>& rows) const {
  Tape& tape = context.tape;
  Device& device = tape.stream().device();
  tape.begin_segment("head");
  const Tensor normalised = run_final_norm(context, x).tensor();
  const auto count = static_cast<int64_t>(rows.size());
  Tensor picked(device, {count, normalised.columns()}, normalised.dtype());
  const size_t row_bytes = static_cast<size_t>(normalised.columns()) * size_of(picked.dtype());
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(picked.raw() + i * row_bytes,
                normalised.raw() + static_cast<size_t>(rows[i]) * row_bytes, row_bytes);
  }
  const Tensor weight = tape.source().weight(*head_);
  const Dtype out = picked.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  Tensor y(device, {count, weight.shape()[0]}, out);
  matmul(device, y, picked, weight, {.transpose_b = true, .alpha = config_.output_multiplier});
  tape.end_segment();
  return y;
}

HeadLoss::Result Transformer::run(LayerContext& context, const LossOptions& options) const {
  return loss(context, run_blocks(context, embed(context)), options);
}

}  // namespace shoestring
