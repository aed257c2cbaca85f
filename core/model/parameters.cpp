#include "core/model/parameters.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

// Builds the list with the class's deviation, multiplier and decay filled in.
class ParamLister {
 public:
  explicit ParamLister(const ModelConfig& config) : m_(config) {}

  void matrix(std::string name, Shape shape, ParamClass c, bool writes_residual = false,
              std::vector<int64_t> parts = {}) {
    double deviation = c == ParamClass::embedding ? m_.init.embedding
                       : c == ParamClass::head    ? m_.init.head
                                                  : m_.init.hidden;
    if (writes_residual && m_.init.depth_scaled) {
      deviation /= std::sqrt(2.0 * static_cast<double>(m_.layers));
    }
    add({.name = std::move(name),
         .shape = std::move(shape),
         .param_class = c,
         .deviation = deviation,
         .parts = std::move(parts)});
  }
  void hidden(std::string name, Shape shape, std::vector<int64_t> parts = {}) {
    matrix(std::move(name), std::move(shape), ParamClass::hidden, false, std::move(parts));
  }
  void residual(std::string name, Shape shape, std::vector<int64_t> parts = {}) {
    matrix(std::move(name), std::move(shape), ParamClass::hidden, true, std::move(parts));
  }
  void vector(std::string name, int64_t size, ParamClass c) {
    add({.name = std::move(name),
         .shape = {size},
         .param_class = c,
         .deviation = 0,
         .fill = c == ParamClass::gain ? 1.0 : 0.0,
         .decay = false});
  }
  void gain(std::string name, int64_t size) { vector(std::move(name), size, ParamClass::gain); }
  std::vector<ParamInfo> take() { return std::move(list_); }

 private:
  void add(ParamInfo info) {
    const LrMultipliers& lr = m_.lr_multipliers;
    const double by_class[] = {lr.embedding, lr.hidden, lr.head, lr.gain, lr.bias};
    info.lr_multiplier = by_class[static_cast<int>(info.param_class)];
    list_.push_back(std::move(info));
  }
  const ModelConfig& m_;
  std::vector<ParamInfo> list_;
};

void list_grouped_query(ParamLister& list, const ModelConfig& m, const std::string& at) {
  const int64_t hd = m.dim_of_head(), q = m.heads * hd, kv = m.kv_heads * hd;
  list.hidden(at + "qkv.weight", {q + 2 * kv, m.hidden}, {q, kv, kv});
  if (m.qkv_bias) list.vector(at + "qkv.bias", q + 2 * kv, ParamClass::bias);
  if (m.qk_norm) {
    list.gain(at + "q_norm.gain", hd);
    list.gain(at + "k_norm.gain", hd);
  }
}

void list_latent(ParamLister& list, const ModelConfig& m, const std::string& at) {
  const MlaConfig& a = m.mla;
  const int64_t q = m.heads * a.qk_dim();
  if (a.q_latent > 0) {
    list.hidden(at + "q_down.weight", {a.q_latent, m.hidden});
    list.gain(at + "q_latent_norm.gain", a.q_latent);
    list.hidden(at + "q_up.weight", {q, a.q_latent});
  } else {
    list.hidden(at + "q.weight", {q, m.hidden});
  }
  list.hidden(at + "kv_down.weight", {a.kv_latent + a.rope_dim, m.hidden});
  list.gain(at + "kv_latent_norm.gain", a.kv_latent);
  list.hidden(at + "kv_up.weight", {m.heads * (a.nope_dim + a.v_dim), a.kv_latent});
}

void list_mlp(ParamLister& list, const std::string& at, int64_t d, int64_t f) {
  list.hidden(at + "gate_up.weight", {2 * f, d}, {f, f});
  list.residual(at + "down.weight", {d, f});
}

void list_experts(ParamLister& list, const ModelConfig& m, const std::string& at) {
  const int64_t d = m.hidden, e = m.moe.experts, f = m.moe.ffn;
  list.hidden(at + "router.weight", {e, d});
  const auto count = static_cast<size_t>(e);
  list.hidden(at + "experts.gate_up.weight", {e * 2 * f, d}, std::vector<int64_t>(2 * count, f));
  list.residual(at + "experts.down.weight", {e * d, f}, std::vector<int64_t>(count, d));
  if (m.moe.shared > 0) list_mlp(list, at + "shared.", d, m.moe.shared * f);
}

void list_block(ParamLister& list, const ModelConfig& m, int64_t index) {
  const std::string at = block_prefix(m, index);
  list.gain(at + "attention_norm.gain", m.hidden);
  m.mla.on() ? list_latent(list, m, at + "attention.")
             : list_grouped_query(list, m, at + "attention.");
  list.residual(at + "attention.output.weight", {m.hidden, m.attention_width()});
  list.gain(at + "mlp_norm.gain", m.hidden);
  // A prediction module's block is of the last block's kind.
  if (m.moe.sparse(std::min(index, m.layers - 1))) {
    list_experts(list, m, at + "moe.");
  } else {
    list_mlp(list, at + "mlp.", m.hidden, m.ffn);
  }
}

void list_prediction(ParamLister& list, const ModelConfig& m, int64_t k) {
  const std::string at = cat("mtp.", k, ".");
  list.gain(at + "hidden_norm.gain", m.hidden);
  list.gain(at + "embedding_norm.gain", m.hidden);
  list.hidden(at + "projection.weight", {m.hidden, 2 * m.hidden});
  list_block(list, m, m.layers + k);
  list.gain(at + "final_norm.gain", m.hidden);
}

int64_t elements_of(const ParamInfo& p) {
  int64_t product = 1;
  for (int64_t dim : p.shape.dims()) product *= dim;
  return product;
}

bool is_routed(const ParamInfo& p) { return p.name.find(".moe.experts.") != std::string::npos; }
bool is_prediction(const ParamInfo& p) { return p.name.starts_with("mtp."); }

}  // namespace

Chunk whole_model(const ModelConfig& config) {
  return {.first_block = 0, .last_block = config.layers};
}

std::vector<Chunk> cut(const ModelConfig& config, const std::vector<int64_t>& blocks_per_chunk) {
  std::vector<Chunk> chunks;
  int64_t at = 0;
  for (int64_t blocks : blocks_per_chunk) {
    if (blocks < 0) fail_usage(cat("a pipeline chunk of ", blocks, " blocks"));
    chunks.push_back({.first_block = at,
                      .last_block = at + blocks,
                      .embedding = at == 0 && chunks.empty(),
                      .head = false});
    at += blocks;
  }
  if (at != config.layers || chunks.empty()) {
    fail_usage(cat("the pipeline chunks hold ", at, " blocks but the model has ", config.layers));
  }
  chunks.back().head = true;
  return chunks;
}

std::string block_prefix(const ModelConfig& config, int64_t block) {
  return block < config.layers ? cat("layers.", block, ".")
                               : cat("mtp.", block - config.layers, ".");
}

std::vector<ParamInfo> parameters_of(const ModelConfig& m, const Chunk& chunk) {
  ParamLister list(m);
  const bool copy = chunk.head && (m.tied_embeddings || m.mtp.depth > 0);
  if (chunk.embedding || copy) {
    list.matrix("embedding.weight", {m.vocabulary, m.hidden}, ParamClass::embedding);
  }
  for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) list_block(list, m, i);
  if (chunk.head) {
    list.gain("final_norm.gain", m.hidden);
    if (!m.tied_embeddings) {
      list.matrix("head.weight", {m.vocabulary, m.hidden}, ParamClass::head);
    }
    for (int64_t k = 0; k < m.mtp.depth; ++k) list_prediction(list, m, k);
  }
  return list.take();
}

std::vector<std::pair<std::string, Shape>> states_of(const ModelConfig& m, const Chunk& chunk) {
  std::vector<std::pair<std::string, Shape>> list;
  auto add = [&](int64_t block) {
    if (!m.moe.sparse(std::min(block, m.layers - 1))) return;
    list.emplace_back(block_prefix(m, block) + "moe.router.bias", Shape{m.moe.experts});
  };
  for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) add(i);
  for (int64_t k = 0; chunk.head && k < m.mtp.depth; ++k) add(m.layers + k);
  return list;
}

ParamCounts count_parameters(const ModelConfig& m) {
  ParamCounts counts;
  for (const ParamInfo& p : parameters_of(m, whole_model(m))) {
    const int64_t n = elements_of(p);
    if (is_prediction(p)) {
      counts.prediction += n;
      continue;
    }
    counts.total += n;
    counts.active += is_routed(p) ? n / m.moe.experts * m.moe.chosen : n;
    const bool table = p.param_class == ParamClass::embedding || p.param_class == ParamClass::head;
    if (!table) counts.non_embedding += n;
  }
  return counts;
}

double training_flop_per_token(const ModelConfig& m, int64_t sequence_length) {
  double weights = static_cast<double>(m.vocabulary * m.hidden * (1 + m.mtp.depth));
  for (const ParamInfo& p : parameters_of(m, whole_model(m))) {
    if (p.param_class != ParamClass::hidden) continue;
    const auto n = static_cast<double>(elements_of(p));
    const auto part = static_cast<double>(m.moe.chosen) / static_cast<double>(m.moe.experts);
    weights += is_routed(p) ? n * part : n;
  }
  // A window or a short sequence bounds how far back a token looks; causal: half on average.
  const int64_t seen = m.window > 0 ? std::min(m.window, sequence_length) : sequence_length;
  return 6.0 * weights + training_flop_per_pair(m) * static_cast<double>(seen) / 2;
}

double training_flop_per_pair(const ModelConfig& m) {
  const int64_t query = m.mla.on() ? m.heads * m.mla.qk_dim() : m.heads * m.dim_of_head();
  return 6.0 * static_cast<double>((m.layers + m.mtp.depth) * (query + m.attention_width()));
}

}  // namespace shoestring
