#include "core/model/transformer.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr int64_t first_positions = 64;  // of the rotary table: a prompt's, before it grows

// The output of a block is a sum that the next norm makes while it reads.
void tell_output(Tape& tape, const Residual& x, double multiplier, const std::string& name) {
  const Tensor delta = x.delta ? x.delta.tensor() : Tensor();
  tape.add_statistic(name,
                     statistic_of(tape.stream().device(), x.stream.tensor(), delta, multiplier));
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, ParamStore& store, const Chunk& chunk,
                         const Boundaries& boundaries)
    : config_(config), chunk_(chunk), boundaries_(boundaries), store_(&store) {
  blocks_.resize(static_cast<size_t>(chunk.last_block - chunk.first_block));
  for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) {
    bind_block(blocks_[static_cast<size_t>(i - chunk.first_block)], i, store);
  }
  if (chunk.embedding) embedding_ = bind_embedding(store);
  if (chunk.head) {
    final_norm_ = bind_norm("final_norm.gain", store);
    head_ = &store.param(config.tied_embeddings ? "embedding.weight" : "head.weight");
    for (int64_t k = 0; k < config.mtp.depth; ++k) bind_module(k, store);
  }
}

void Transformer::set_rope(const RopeConfig& rope) {
  config_.rope = rope;
  const int64_t rows = rope_.cos ? rope_.cos.rows() : 0;
  rope_ = {};
  reserve_positions(rows);
}

void Transformer::reserve_positions(int64_t positions) const {
  const int64_t rows = rope_.cos ? rope_.cos.rows() : 0;
  const int64_t wanted = std::min(positions, config_.max_positions);
  if (wanted <= rows) return;
  rope_ = make_rope_table(store_->device(), config_.rope, config_.rotated_dims(), wanted);
}

// A row is a function of its position alone, so a longer table has the same bits; ops that were
// recorded keep the one they were given. Positions beyond the model's are the ops' error.
const RopeTable& Transformer::rope_for(const BatchTensors& batch) const {
  const auto positions = batch.positions.span<int32_t>();
  const int64_t last =
      positions.empty() ? 0 : *std::max_element(positions.begin(), positions.end());
  const int64_t rows = rope_.cos ? rope_.cos.rows() : 0;
  if (last >= rows || rows == 0) {
    reserve_positions(std::max({last + 1, 2 * rows, first_positions}));
  }
  return rope_;
}

EmbeddingLayer Transformer::bind_embedding(ParamStore& store) const {
  return {.table = &store.param("embedding.weight"),
          .multiplier = config_.embedding_multiplier,
          .vocabulary = boundaries_.vocabulary,
          .out = boundaries_.scatter};
}

NormLayer Transformer::bind_norm(const std::string& name, ParamStore& store) const {
  return {.gain = &store.param(name),
          .epsilon = config_.norm_epsilon,
          .delta_multiplier = config_.residual_multiplier};
}

void Transformer::bind_block(DecoderBlock& block, int64_t index, ParamStore& store) const {
  const std::string at = block_prefix(config_, index);
  block.attention_norm = bind_norm(at + "attention_norm.gain", store);
  block.mlp_norm = bind_norm(at + "mlp_norm.gain", store);
  config_.mla.on() ? bind_latent_attention(block, index, store)
                   : bind_attention(block.attention, index, store);
  if (config_.moe.sparse(std::min(index, config_.layers - 1))) {
    block.moe = bind_moe(config_.moe, store, at.substr(0, at.size() - 1));
    block.moe->gather_logits = boundaries_.gather_alike;
    block.moe->keep_rows = boundaries_.keep;
    if (block.moe->shared) bind_edges(block.moe->shared->gate_up, block.moe->shared->down);
    return;
  }
  block.mlp.gate_up.weight = &store.param(at + "mlp.gate_up.weight");
  block.mlp.down.weight = &store.param(at + "mlp.down.weight");
  bind_edges(block.mlp.gate_up, block.mlp.down);
}

// In front of a pair of products, the first cut by outputs, the second by inputs, and behind it.
void Transformer::bind_edges(LinearLayer& first, LinearLayer& second) const {
  first.in = boundaries_.gather;
  second.out = boundaries_.scatter;
}

void Transformer::bind_attention(AttentionLayer& a, int64_t index, ParamStore& store) const {
  const ModelConfig& m = config_;
  const std::string at = block_prefix(m, index) + "attention.";
  a.shape = {.q_heads = m.heads,
             .kv_heads = m.kv_heads,
             .head_dim = m.dim_of_head(),
             .v_head_dim = m.dim_of_head(),
             .scale = m.scale_of_attention(),
             .window = m.window,
             .layer = static_cast<int>(index)};
  a.norm_epsilon = m.norm_epsilon;
  a.qkv.weight = &store.param(at + "qkv.weight");
  if (m.qkv_bias) a.qkv.bias = &store.param(at + "qkv.bias");
  if (m.qk_norm) {
    a.q_gain = &store.param(at + "q_norm.gain");
    a.k_gain = &store.param(at + "k_norm.gain");
  }
  a.output.weight = &store.param(at + "output.weight");
  bind_edges(a.qkv, a.output);
}

void Transformer::bind_latent_attention(DecoderBlock& block, int64_t index,
                                        ParamStore& store) const {
  const ModelConfig& m = config_;
  const std::string at = block_prefix(m, index) + "attention.";
  MlaLayer& a = block.latent_attention.emplace();
  a.shape = {.q_heads = m.heads,
             .kv_heads = m.heads,
             .head_dim = m.mla.qk_dim(),
             .v_head_dim = m.mla.v_dim,
             .scale = m.scale_of_attention(),
             .window = m.window,
             .layer = static_cast<int>(index)};
  a.nope = m.mla.nope_dim;
  a.rope = m.mla.rope_dim;
  if (m.mla.q_latent > 0) {
    a.q_down.weight = &store.param(at + "q_down.weight");
    a.q_gain = &store.param(at + "q_latent_norm.gain");
  }
  a.q.weight = &store.param(at + (m.mla.q_latent > 0 ? "q_up.weight" : "q.weight"));
  a.kv_down.weight = &store.param(at + "kv_down.weight");
  a.kv_gain = &store.param(at + "kv_latent_norm.gain");
  a.kv_up.weight = &store.param(at + "kv_up.weight");
  a.output.weight = &store.param(at + "output.weight");
  // The latents are gathered, which are narrower than the stream; their norms see all rows.
  (a.q_down.weight ? a.q_down.out : a.q.in) = boundaries_.gather;
  a.kv_down.out = boundaries_.gather;
  a.output.out = boundaries_.scatter;
}

void Transformer::bind_module(int64_t k, ParamStore& store) {
  const std::string at = block_prefix(config_, config_.layers + k);
  MtpModule& module = modules_.emplace_back();
  module.prefix = at;
  module.embedding = bind_embedding(store);
  module.norm_epsilon = config_.norm_epsilon;
  module.embedding_gain = &store.param(at + "embedding_norm.gain");
  module.hidden_gain = &store.param(at + "hidden_norm.gain");
  module.projection.weight = &store.param(at + "projection.weight");
  bind_block(module.block, config_.layers + k, store);
  module.final_norm = bind_norm(at + "final_norm.gain", store);
}

Residual Transformer::embed(LayerContext& context) const {
  check(embedding_.table != nullptr, "this pipeline chunk has no embedding");
  context.tape.begin_segment("embedding");
  const Value x = embedding_.run(context, context.batch.tokens);
  context.tape.end_segment();
  return {x, Value()};
}

Residual Transformer::run_blocks(LayerContext& context, Residual x) const {
  context.rope = &rope_for(context.batch);
  const bool regions = context.recompute == Recompute::block;
  int region = -1;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (regions) {
      x = {run_sum(context, blocks_[i].attention_norm, x), Value()};
      if (region >= 0) context.tape.drop_region(region, {});
      region = context.tape.begin_region();
    }
    const int64_t index = chunk_.first_block + static_cast<int64_t>(i);
    x = blocks_[i].run(context, std::move(x), block_prefix(config_, index));
    if (regions) context.tape.end_region(region);
    if (context.tape.wants_statistics()) {
      tell_output(context.tape, x, config_.residual_multiplier, cat("layers.", index));
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

HeadLoss::Result Transformer::run_head(LayerContext& context, const Value& rows,
                                       const HeadRequest& request) const {
  Tape& tape = context.tape;
  const Value normalised = boundaries_.gather ? boundaries_.gather->cross(tape, rows) : rows;
  ParamSource& source = tape.source();
  Tensor dx, dw;
  if (tape.recording()) dw = source.gradient(*head_);
  HeadLoss::Result result;
  {
    const Tape::Watch watch(tape, HeadLoss::name, Phase::forward);
    result = HeadLoss::forward(
        tape.stream(), request.attributes,
        {.x = normalised.tensor(), .weight = source.weight(*head_), .labels = request.labels},
        {.dx = tape.recording() ? &dx : nullptr,
         .dw = tape.recording() ? &dw : nullptr,
         .token_losses = request.token_losses,
         .greedy = request.greedy});
  }
  if (tape.recording()) {
    tape.use_done(*head_);
    tape.record_gradient("head_loss", normalised, std::move(dx));
  }
  return result;
}

HeadLoss::Result Transformer::loss(LayerContext& context, const Residual& x,
                                   const LossOptions& options) const {
  Tape& tape = context.tape;
  const bool further = options.predictions != nullptr && !modules_.empty();
  tape.begin_segment("head");
  const Value normalised = run_final_norm(context, x);
  if (tape.recording()) {  // all uses, before the first is done
    for (size_t n = 0; n < 1 + (further ? modules_.size() : 0); ++n) tape.count_use(*head_);
  }
  Tensor greedy;
  const HeadRequest request{.attributes = {.loss_scale = options.loss_scale,
                                           .logit_multiplier = config_.output_multiplier,
                                           .z_coefficient = options.z_loss,
                                           .exact = options.exact,
                                           .shard = boundaries_.vocabulary},
                            .labels = context.batch.labels,
                            .token_losses = options.token_losses,
                            .greedy = further ? &greedy : nullptr};
  const HeadLoss::Result result = run_head(context, normalised, request);
  tape.end_segment();
  if (further) *options.predictions = predict(context, normalised, greedy, options);
  return result;
}

std::vector<PredictionResult> Transformer::predict(LayerContext& context, Value hidden,
                                                   const Tensor& main_greedy,
                                                   const LossOptions& options) const {
  Tape& tape = context.tape;
  const double weight = config_.mtp.weight / static_cast<double>(modules_.size());
  std::vector<PredictionResult> results;
  for (size_t k = 0; k < modules_.size(); ++k) {
    const auto by = static_cast<int64_t>(k) + 1;
    const ShiftedRows rows = shift_rows(tape.stream().device(), context.batch, by);
    const Residual x = modules_[k].run(context, hidden, rows.tokens);
    tape.begin_segment(cat(modules_[k].prefix, "head"));
    hidden = run_norm(context, modules_[k].final_norm, x)[1];
    Tensor greedy;
    const HeadLoss::Result r =
        run_head(context, hidden,
                 {.attributes = {.loss_scale = weight * options.loss_scale,
                                 .logit_multiplier = config_.output_multiplier,
                                 .exact = options.exact,
                                 .shard = boundaries_.vocabulary},
                  .labels = rows.labels,
                  .greedy = &greedy});
    tape.end_segment();
    results.push_back({.loss_sum = r.loss_sum,
                       .count = r.count,
                       .agreed = count_agreements(rows, greedy, main_greedy, by),
                       .first_not_finite = r.first_not_finite});
  }
  return results;
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
  const Tape::Watch watch(tape, "logits", Phase::forward);
  matmul(device, y, picked, weight, {.transpose_b = true, .alpha = config_.output_multiplier});
  tape.end_segment();
  return y;
}

HeadLoss::Result Transformer::run(LayerContext& context, const LossOptions& options) const {
  return loss(context, run_blocks(context, embed(context)), options);
}

}  // namespace shoestring
