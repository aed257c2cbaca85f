#pragma once
// Small config.json texts, changed key by key, and small models of every family.

#include <map>
#include <string>
#include <vector>

#include "io/hugging_face/config.h"
#include "nlohmann/json.hpp"

namespace shoestring {

inline nlohmann::json llama_json() {
  return {{"architectures", nlohmann::json::array({"LlamaForCausalLM"})},
          {"model_type", "llama"},
          {"vocab_size", 96},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"torch_dtype", "bfloat16"}};
}

inline nlohmann::json deepseek_json(const std::string& type) {
  nlohmann::json json = llama_json();
  json.erase("architectures");
  json.update(nlohmann::json({{"model_type", type},
                              {"num_key_value_heads", 4},
                              {"kv_lora_rank", 16},
                              {"q_lora_rank", 12},
                              {"qk_nope_head_dim", 8},
                              {"qk_rope_head_dim", 4},
                              {"v_head_dim", 6},
                              {"n_routed_experts", 8},
                              {"n_shared_experts", 1},
                              {"num_experts_per_tok", 2},
                              {"moe_intermediate_size", 12},
                              {"first_k_dense_replace", 1},
                              {"n_group", 4},
                              {"topk_group", 2}}));
  return json;
}

inline HuggingFaceConfig parse_json(const nlohmann::json& json) {
  return parse_hugging_face_config(json.dump(), "config.json");
}

// One small model of each family, with what is particular to it.
inline std::map<ModelFamily, ModelConfig> small_models() {
  const ModelConfig base{.layers = 2,
                         .hidden = 32,
                         .ffn = 48,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .vocabulary = 96,
                         .max_positions = 64};
  std::map<ModelFamily, ModelConfig> models;
  models[ModelFamily::llama] = base;
  models[ModelFamily::llama].rope = {
      .theta = 5e5, .scaling = "llama3", .factor = 8, .original_max_positions = 32};
  models[ModelFamily::mistral] = base;
  models[ModelFamily::mistral].window = 16;
  models[ModelFamily::qwen2] = base;
  models[ModelFamily::qwen2].qkv_bias = true;
  models[ModelFamily::qwen2].tied_embeddings = true;
  models[ModelFamily::qwen3] = base;
  models[ModelFamily::qwen3].qk_norm = true;
  models[ModelFamily::qwen3].head_dim = 12;
  ModelConfig& qwen = models[ModelFamily::qwen3_moe] = models[ModelFamily::qwen3];
  qwen.moe = {.experts = 6, .chosen = 2, .ffn = 16, .first_dense = 1, .shift = 1};
  qwen.moe.renormalise = false;
  qwen.moe.balance.global_batch = 0.001;
  ModelConfig& mixtral = models[ModelFamily::mixtral] = base;
  mixtral.moe = {.experts = 4, .chosen = 2, .ffn = 48};
  mixtral.moe.balance.switch_loss = 0.02;
  ModelConfig& v2 = models[ModelFamily::deepseek_v2] = base;
  v2.head_dim = 0;
  v2.kv_heads = 4;
  v2.mla = {.kv_latent = 16, .q_latent = 0, .nope_dim = 8, .rope_dim = 4, .v_dim = 6};
  v2.moe = {.experts = 8, .chosen = 2, .ffn = 12, .shared = 2, .first_dense = 1};
  v2.moe.groups = 4;
  v2.moe.groups_chosen = 2;
  v2.moe.group_score = "max";
  v2.moe.renormalise = false;
  v2.moe.scaling = 16;
  v2.moe.balance.sequence = 0.001;
  ModelConfig& v3 = models[ModelFamily::deepseek_v3] = v2;
  v3.mla.q_latent = 12;
  v3.moe.scores = "sigmoid";
  v3.moe.group_score = "top2";
  v3.moe.renormalise = true;
  v3.moe.scaling = 2.5;
  v3.moe.shared = 1;
  v3.moe.balance = {.bias_speed = 0.001};
  v3.moe.balance.sequence = 0.0001;
  v3.mtp.depth = 1;
  v3.rope = {.theta = 10000,
             .scaling = "yarn",
             .factor = 4,
             .original_max_positions = 16,
             .mscale = 1,
             .mscale_all_dim = 1};
  return models;
}

}  // namespace shoestring
