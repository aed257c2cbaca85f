#include "io/hugging_face/config_text.h"

#include "core/check.h"
#include "core/text.h"
#include "io/hugging_face/fp8_choice.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

std::string_view torch_name(Dtype dtype) {
  if (dtype == Dtype::bf16) return "bfloat16";
  return dtype == Dtype::f16 ? "float16" : "float32";
}

// One id, a list of several, or null.
Json ids_of(const std::vector<int64_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? Json(ids[0]) : Json(ids);
}

Json scaling_of(const RopeConfig& rope) {
  Json scaling = {{"rope_type", rope.scaling}, {"factor", rope.factor}};
  if (rope.scaling == "linear") return scaling;
  scaling["original_max_position_embeddings"] = rope.original_max_positions;
  if (rope.scaling == "llama3") {
    scaling["low_freq_factor"] = rope.low_freq_factor;
    scaling["high_freq_factor"] = rope.high_freq_factor;
    return scaling;
  }
  scaling["beta_fast"] = rope.beta_fast;
  scaling["beta_slow"] = rope.beta_slow;
  if (rope.attention_factor > 0) scaling["attention_factor"] = rope.attention_factor;
  if (rope.mscale > 0) scaling["mscale"] = rope.mscale;
  if (rope.mscale_all_dim > 0) scaling["mscale_all_dim"] = rope.mscale_all_dim;
  return scaling;
}

void put_rope(const ModelConfig& m, Json& to) {
  Json both = {{"rope_theta", m.rope.theta}, {"rope_type", "default"}};
  to["rope_theta"] = m.rope.theta;
  to["rope_scaling"] = nullptr;
  if (m.rope.scaling != "none") {
    const Json scaling = scaling_of(m.rope);
    both.update(scaling);
    to["rope_scaling"] = scaling;
    to["rope_scaling"]["type"] = m.rope.scaling;  // what the oldest readers look for
  }
  to["rope_parameters"] = both;
}

void put_attention(ModelFamily family, const ModelConfig& m, Json& to) {
  to["num_attention_heads"] = m.heads;
  to["num_key_value_heads"] = m.mla.on() ? m.heads : m.kv_heads;
  if (family != ModelFamily::qwen2) to["attention_bias"] = false;
  to["attention_dropout"] = 0.0;
  if (!m.mla.on()) {
    to["head_dim"] = m.dim_of_head();
    return;
  }
  to["kv_lora_rank"] = m.mla.kv_latent;
  to["q_lora_rank"] = m.mla.q_latent > 0 ? Json(m.mla.q_latent) : Json();
  to["qk_nope_head_dim"] = m.mla.nope_dim;
  to["qk_rope_head_dim"] = m.mla.rope_dim;
  to["v_head_dim"] = m.mla.v_dim;
}

void put_window(ModelFamily family, const ModelConfig& m, Json& to) {
  if (is_deepseek(family) || family == ModelFamily::llama) return;
  to["sliding_window"] = m.window > 0 ? Json(m.window) : Json();
  if (family == ModelFamily::mistral || family == ModelFamily::mixtral) return;
  to["use_sliding_window"] = m.window > 0;
  to["max_window_layers"] = m.window > 0 ? 0 : m.layers;
  if (family == ModelFamily::qwen3_moe) return;
  const char* kind = m.window > 0 ? "sliding_attention" : "full_attention";
  to["layer_types"] = std::vector<std::string>(static_cast<size_t>(m.layers), kind);
}

// A dense model is one whose sparse layers come after the last, prediction modules included. What
// the config says of experts is of none then, and its readers must not find fault with it.
MoeConfig experts_of(const ModelConfig& m) {
  if (has_sparse_layers(m)) return m.moe;
  return {
      .experts = 1, .chosen = 1, .ffn = m.ffn, .shared = 1, .first_dense = m.layers + m.mtp.depth};
}

void put_deepseek_experts(ModelFamily family, const ModelConfig& m, Json& to) {
  const MoeConfig e = experts_of(m);
  const bool v3 = family == ModelFamily::deepseek_v3, grouped = e.groups_chosen < e.groups;
  to["first_k_dense_replace"] = e.first_dense;
  to["moe_layer_freq"] = 1;
  to["n_routed_experts"] = e.experts;
  to["n_shared_experts"] = e.shared;
  to["num_experts_per_tok"] = e.chosen;
  to["moe_intermediate_size"] = e.ffn;
  to["n_group"] = grouped ? e.groups : 1;
  to["topk_group"] = grouped ? e.groups_chosen : 1;
  to["norm_topk_prob"] = e.renormalise;
  to["routed_scaling_factor"] = e.scaling;
  to["scoring_func"] = v3 ? "sigmoid" : "softmax";
  to["topk_method"] = v3 ? "noaux_tc" : grouped ? "group_limited_greedy" : "greedy";
  to["aux_loss_alpha"] = e.balance.sequence;
  to["seq_aux"] = true;
  to["ep_size"] = 1;
  if (v3) to["num_nextn_predict_layers"] = m.mtp.depth;
  if (v3) to["rope_interleave"] = true;
}

void put_experts(ModelFamily family, const ModelConfig& m, Json& to) {
  if (is_deepseek(family)) return put_deepseek_experts(family, m, to);
  if (!m.moe.on()) return;
  // Two names of one number: each reader knows another, and they must be equal.
  to["num_experts"] = m.moe.experts;
  to["num_local_experts"] = m.moe.experts;
  to["num_experts_per_tok"] = m.moe.chosen;
  to["output_router_logits"] = false;
  const BalanceConfig& balance = m.moe.balance;
  const bool global = balance.global_batch > 0;
  to["router_aux_loss_coef"] = global ? balance.global_batch : balance.switch_loss;
  if (family == ModelFamily::mixtral) {
    to["router_jitter_noise"] = 0.0;
    return;
  }
  to["moe_intermediate_size"] = m.moe.ffn;
  to["norm_topk_prob"] = m.moe.renormalise;
  to["decoder_sparse_step"] = m.moe.every;
  Json dense = Json::array();
  for (int64_t i = 0; i < m.moe.first_dense; ++i) dense.push_back(i);
  to["mlp_only_layers"] = dense;
}

void put_blocks(const HuggingFaceConfig& c, Json& to) {
  if (!c.blocks.on()) return;
  to["quantization_config"] = {
      {"activation_scheme", "dynamic"},
      {"fmt", "e4m3"},
      {"quant_method", "fp8"},
      {"weight_block_size", Json::array({c.blocks.rows, c.blocks.columns})},
      {"modules_to_not_convert", Fp8Choice(c).plain_modules()}};
}

}  // namespace

std::string hugging_face_config_text(const HuggingFaceConfig& c) {
  const ModelConfig& m = c.model;
  const std::string_view type = torch_name(c.dtype);
  Json to;
  to["architectures"] = Json::array({architecture_of(c.family)});
  to["model_type"] = model_type_of(c.family);
  to["vocab_size"] = m.vocabulary;
  to["hidden_size"] = m.hidden;
  to["intermediate_size"] = c.family == ModelFamily::mixtral ? m.moe.ffn : m.ffn;
  to["num_hidden_layers"] = m.layers;
  put_attention(c.family, m, to);
  put_window(c.family, m, to);
  put_experts(c.family, m, to);
  to["hidden_act"] = "silu";
  if (c.family == ModelFamily::llama) to["mlp_bias"] = false;
  to["max_position_embeddings"] = m.max_positions;
  put_rope(m, to);
  to["rms_norm_eps"] = m.norm_epsilon;
  to["initializer_range"] = m.init.hidden;
  to["tie_word_embeddings"] = m.tied_embeddings;
  to["use_cache"] = true;
  to["bos_token_id"] = ids_of(c.begin_ids);
  to["eos_token_id"] = ids_of(c.end_ids);
  to["pad_token_id"] = nullptr;
  to["torch_dtype"] = type;
  to["dtype"] = type;
  put_blocks(c, to);
  return to.dump(2) + "\n";
}

std::string generation_config_text(const HuggingFaceConfig& config, std::string_view defaults) {
  Json to = {{"_from_model_config", true}};
  if (!defaults.empty()) to = Json::parse(defaults, nullptr, false);
  check(to.is_object(), "the defaults of a generation are no JSON object");
  const auto put = [&](const char* key, const std::vector<int64_t>& ids) {
    if (!ids.empty() || defaults.empty()) to[key] = ids_of(ids);
  };
  put("bos_token_id", config.begin_ids);
  put("eos_token_id", config.end_ids);
  return to.dump(2) + "\n";
}

}  // namespace shoestring
