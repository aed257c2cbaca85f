#include "io/hugging_face/family.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

[[noreturn]] void fail_family(std::string_view what) {
  fail_usage(cat("no Hugging Face family computes this model: ", what));
}

void require(bool ok, std::string_view what) {
  if (!ok) fail_family(what);
}

void check_scales(const ModelConfig& m) {
  require(m.embedding_multiplier == 1 && m.residual_multiplier == 1 && m.output_multiplier == 1,
          "model.embedding_multiplier, residual_multiplier and output_multiplier must be 1");
  require(m.attention_scale == 0, "model.attention_scale must be 0, which is 1 / sqrt(head_dim)");
}

ModelFamily latent_family(const ModelConfig& m) {
  require(m.window == 0, "latent attention has no model.window");
  if (!has_sparse_layers(m)) return ModelFamily::deepseek_v3;
  const MoeConfig& e = m.moe;
  const bool v3 = e.scores == "sigmoid";
  require(v3 || m.mtp.depth == 0, "DeepSeek-V2 has no prediction modules (model.mtp.depth)");
  require(e.every == 1, "DeepSeek's layers are all sparse from one on (model.moe.every must be 1)");
  if (v3) {
    require(e.group_score == "top2" || e.groups_chosen == e.groups,
            "of sigmoid scores a group counts by its two best (model.moe.group_score = \"top2\")");
    // Also where there is but one group, of all experts.
    require(e.experts >= 2, "DeepSeek-V3's router needs two experts or more (model.moe.experts)");
    return ModelFamily::deepseek_v3;
  }
  require(!e.renormalise, "DeepSeek-V2 does not renormalise (model.moe.renormalise)");
  require(e.group_score == "max" || e.groups_chosen == e.groups,
          "of softmax scores a group counts by its best (model.moe.group_score = \"max\")");
  require(e.balance.bias_speed == 0, "DeepSeek-V2 has no selection bias (balance.bias_speed)");
  require(m.hidden % m.heads == 0, "DeepSeek-V2's hidden must be a multiple of heads");
  return ModelFamily::deepseek_v2;
}

ModelFamily sparse_family(const ModelConfig& m) {
  const MoeConfig& e = m.moe;
  require(e.scores == "softmax",
          "sigmoid scores belong to latent attention (model.moe.scores, model.mla)");
  require(e.balance.bias_speed == 0,
          "a selection bias belongs to latent attention (model.moe.balance.bias_speed)");
  require(e.groups_chosen == e.groups, "groups of experts belong to latent attention");
  require(e.shared == 0, "shared experts belong to latent attention (model.moe.shared)");
  require(e.scaling == 1, "model.moe.scaling must be 1 without latent attention");
  require(!m.qkv_bias, "a sparse model has no model.qkv_bias");
  if (m.qk_norm) {
    require(e.shift % e.every == 1 % e.every,
            "of Qwen3-MoE's layers every n-th is sparse (model.moe.shift must be 1)");
    return ModelFamily::qwen3_moe;
  }
  require(e.first_dense == 0 && e.every == 1,
          "all of Mixtral's layers are sparse (model.moe.first_dense must be 0, every 1)");
  require(e.renormalise, "Mixtral renormalises the chosen scores (model.moe.renormalise)");
  return ModelFamily::mixtral;
}

ModelFamily dense_family(const ModelConfig& m) {
  require(!(m.qkv_bias && m.qk_norm), "none has both model.qkv_bias and model.qk_norm");
  if (m.qk_norm) return ModelFamily::qwen3;
  if (m.qkv_bias) return ModelFamily::qwen2;
  // Mistral is Llama with a window, and its class takes any width of heads.
  const bool llama = m.window == 0 && m.hidden % m.heads == 0;
  return llama ? ModelFamily::llama : ModelFamily::mistral;
}

}  // namespace

ModelFamily family_of(const ModelConfig& model) {
  check_scales(model);
  if (model.mla.on()) return latent_family(model);
  require(model.mtp.depth == 0, "prediction modules belong to DeepSeek-V3 (model.mtp, model.mla)");
  return model.moe.on() ? sparse_family(model) : dense_family(model);
}

}  // namespace shoestring
