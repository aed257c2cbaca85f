#include "io/hugging_face/config.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/hugging_face/config_keys.h"
#include "io/hugging_face/read_rope.h"

namespace shoestring {
namespace {

struct FamilyName {
  std::string_view type, architecture;
};
constexpr std::array<FamilyName, num_model_families> names = {
    {{"llama", "LlamaForCausalLM"},
     {"mistral", "MistralForCausalLM"},
     {"qwen2", "Qwen2ForCausalLM"},
     {"qwen3", "Qwen3ForCausalLM"},
     {"qwen3_moe", "Qwen3MoeForCausalLM"},
     {"mixtral", "MixtralForCausalLM"},
     {"deepseek_v2", "DeepseekV2ForCausalLM"},
     {"deepseek_v3", "DeepseekV3ForCausalLM"}}};

// So that no product of three of them overflows; each is far beyond any published model.
constexpr WholeRange any_width{1, int64_t{1} << 22}, any_count{1, int64_t{1} << 16},
    any_vocabulary{1, int64_t{1} << 28}, any_layers{1, 100'000}, any_positions{1, int64_t{1} << 22},
    any_id{0, INT32_MAX};
constexpr WholeRange or_none(WholeRange range) { return {0, range.most}; }

ModelFamily read_family(const ConfigKeys& keys) {
  const std::string type = keys.text_or("model_type", "");
  const std::vector<std::string> architectures = keys.texts("architectures");
  for (int i = 0; i < num_model_families; ++i) {
    if (names.at(static_cast<size_t>(i)).type == type) return static_cast<ModelFamily>(i);
  }
  for (int i = 0; i < num_model_families && !architectures.empty(); ++i) {
    const bool same = names.at(static_cast<size_t>(i)).architecture == architectures[0];
    if (same) return static_cast<ModelFamily>(i);
  }
  std::string list;
  for (const FamilyName& name : names) append(list, list.empty() ? "" : ", ", name.type);
  keys.refuse("model_type", cat("and the model families that are read are ", list));
}

// The type decides, as it does in transformers.
void warn_of_architecture(const ConfigKeys& keys, HuggingFaceConfig& config) {
  const std::vector<std::string> architectures = keys.texts("architectures");
  if (architectures.empty() || architectures[0] == architecture_of(config.family)) return;
  const bool known = std::any_of(names.begin(), names.end(), [&](const FamilyName& name) {
    return name.architecture == architectures[0];
  });
  if (!known) return;
  config.warnings.push_back(cat(keys.path(), ": \"architectures\" names ", architectures[0],
                                ", but \"model_type\" is \"", model_type_of(config.family),
                                "\"; it is read as the latter"));
}

// What the models here do not have must be off.
void require_plain(const ConfigKeys& keys) {
  const std::string act = keys.text_or("hidden_act", "silu");
  if (act != "silu" && act != "swish") {
    keys.refuse("hidden_act", "but only \"silu\" (SwiGLU) is computed");
  }
  if (keys.flag_or("attention_bias", false)) {
    keys.refuse("attention_bias",
                "but a bias on the attention's output is computed in no model here");
  }
  if (keys.flag_or("mlp_bias", false)) {
    keys.refuse("mlp_bias", "but biases in the mlp are computed in no model here");
  }
  if (keys.number_or("partial_rotary_factor", 1) != 1) {
    keys.refuse("partial_rotary_factor", "but all dims of a head are rotated here");
  }
}

// Qwen may leave the first layers without a window; here all layers are alike.
int64_t read_window(const ConfigKeys& keys, ModelFamily family, int64_t layers) {
  const bool qwen = family == ModelFamily::qwen2 || family == ModelFamily::qwen3 ||
                    family == ModelFamily::qwen3_moe;
  if (!qwen && family != ModelFamily::mistral && family != ModelFamily::mixtral) return 0;
  const bool none = family == ModelFamily::mixtral || keys.is_null("sliding_window");
  const int64_t window = keys.whole_or("sliding_window", none ? 0 : 4096, {0, INT32_MAX});
  if (qwen && !keys.flag_or("use_sliding_window", false)) return 0;
  const std::vector<std::string> types = keys.texts("layer_types");
  const auto sliding = std::count(types.begin(), types.end(), "sliding_attention");
  if (!types.empty()) {
    const auto all = static_cast<std::ptrdiff_t>(types.size());
    if (sliding != 0 && sliding != all) {
      keys.refuse("layer_types", "but all layers must have the same kind of attention here");
    }
    return sliding == 0 ? 0 : window;
  }
  if (family != ModelFamily::qwen2 && family != ModelFamily::qwen3) return window;
  const int64_t full = keys.whole_or("max_window_layers", 28, {0, INT32_MAX});
  if (full >= layers) return 0;
  if (full > 0) {
    keys.refuse("max_window_layers",
                cat("so that some of the ", layers, " layers have a sliding window and some not"));
  }
  return window;
}

void read_attention(const ConfigKeys& keys, ModelFamily family, ModelConfig& m) {
  m.heads = keys.whole("num_attention_heads", any_count);
  if (!keys.has("num_key_value_heads") &&
      (family == ModelFamily::mistral || family == ModelFamily::mixtral ||
       family == ModelFamily::qwen3_moe)) {
    keys.refuse("num_key_value_heads", "but this family has no number that goes without saying");
  }
  m.kv_heads = keys.whole_or("num_key_value_heads", m.heads, any_count);
  const bool qwen3 = family == ModelFamily::qwen3 || family == ModelFamily::qwen3_moe;
  // Of heads whose width is not written, Qwen3's have 128 dims whatever the model's width.
  const int64_t fallback = family == ModelFamily::qwen3 ? 128 : 0;
  m.head_dim = keys.whole_or("head_dim", fallback, any_count);
  m.qk_norm = qwen3;
  m.qkv_bias = family == ModelFamily::qwen2;
  m.window = read_window(keys, family, m.layers);
  if (m.heads % m.kv_heads != 0) {
    keys.refuse("num_key_value_heads", cat("but must divide num_attention_heads, ", m.heads));
  }
  if (m.head_dim == 0 && m.hidden % m.heads != 0) {
    keys.refuse("head_dim", cat("but num_attention_heads, ", m.heads, ", does not divide ",
                                "hidden_size, ", m.hidden));
  }
  if (m.dim_of_head() % 2 != 0) keys.refuse("head_dim", "but must be even");
}

void read_latent(const ConfigKeys& keys, ModelConfig& m) {
  m.heads = m.kv_heads = keys.whole("num_attention_heads", any_count);
  if (keys.whole_or("num_key_value_heads", m.heads, any_count) != m.heads) {
    keys.refuse("num_key_value_heads",
                cat("but latent attention has one for each of the ", m.heads, " heads"));
  }
  m.mla.kv_latent = keys.whole_or("kv_lora_rank", 512, any_width);
  const int64_t q_latent = keys.is_null("q_lora_rank") ? 0 : 1536;
  m.mla.q_latent = keys.whole_or("q_lora_rank", q_latent, or_none(any_width));
  m.mla.nope_dim = keys.whole_or("qk_nope_head_dim", 128, any_count);
  m.mla.rope_dim = keys.whole_or("qk_rope_head_dim", 64, any_count);
  m.mla.v_dim = keys.whole_or("v_head_dim", 128, any_count);
  if (m.mla.rope_dim % 2 != 0) keys.refuse("qk_rope_head_dim", "but must be even");
  if (!keys.flag_or("rope_interleave", true)) {
    keys.refuse("rope_interleave", "but latent attention rotates neighbouring dims here");
  }
}

void read_deepseek_router(const ConfigKeys& keys, ModelFamily family, MoeConfig& moe) {
  const bool v3 = family == ModelFamily::deepseek_v3;
  const std::string scores = v3 ? "sigmoid" : "softmax";
  if (keys.text_or("scoring_func", scores) != scores) {
    keys.refuse("scoring_func", cat("but this family has \"", scores, "\""));
  }
  const std::string method = keys.text_or("topk_method", v3 ? "noaux_tc" : "greedy");
  if (method != (v3 ? "noaux_tc" : "group_limited_greedy") && (v3 || method != "greedy")) {
    keys.refuse("topk_method", v3 ? "but this family has \"noaux_tc\""
                                  : "but must be \"greedy\" or \"group_limited_greedy\"");
  }
  moe.scores = scores;
  moe.group_score = v3 ? "top2" : "max";
  if (method != "greedy") {
    moe.groups = keys.whole_or("n_group", v3 ? 8 : 1, any_count);
    moe.groups_chosen = keys.whole_or("topk_group", v3 ? 4 : 1, any_count);
  }
  moe.renormalise = keys.flag_or("norm_topk_prob", v3);
  if (!v3 && moe.renormalise) {
    keys.refuse("norm_topk_prob", "but implementations of this family disagree on what it does");
  }
  moe.scaling = keys.number_or("routed_scaling_factor", v3 ? 2.5 : 1.0);
  if (v3) moe.balance.bias_speed = 0.001;  // the report's: the layers have a selection bias
  moe.balance.sequence = v3 ? 0.0001 : keys.number_or("aux_loss_alpha", 0.001);
}

void read_deepseek_experts(const ConfigKeys& keys, ModelFamily family, MoeConfig& moe) {
  const bool v3 = family == ModelFamily::deepseek_v3;
  moe.experts = keys.whole_or("n_routed_experts", v3 ? 256 : 64, any_count);
  moe.chosen = keys.whole("num_experts_per_tok", any_count);
  moe.ffn = keys.whole("moe_intermediate_size", any_width);
  const int64_t shared = keys.is_null("n_shared_experts") ? 0 : v3 ? 1 : 2;
  moe.shared = keys.whole_or("n_shared_experts", shared, {0, 1024});
  moe.first_dense = keys.whole_or("first_k_dense_replace", v3 ? 3 : 0, or_none(any_layers));
  moe.every = keys.whole_or("moe_layer_freq", 1, any_layers);
  read_deepseek_router(keys, family, moe);
}

// Either name; of two different numbers transformers 5 takes the older one.
int64_t read_prediction_depth(const ConfigKeys& keys) {
  const char* older = "num_nextn_predict_layers";
  return keys.whole_or(keys.has(older) ? older : "num_mtp_layers", 1, {0, 64});
}

// Layers without experts must be the first ones.
int64_t read_dense_layers(const ConfigKeys& keys) {
  std::vector<int64_t> dense = keys.wholes("mlp_only_layers", {0, any_layers.most});
  std::sort(dense.begin(), dense.end());
  for (size_t i = 0; i < dense.size(); ++i) {
    if (dense[i] != static_cast<int64_t>(i)) {
      keys.refuse("mlp_only_layers", "but only the first layers may be without experts here");
    }
  }
  return static_cast<int64_t>(dense.size());
}

// transformers takes both names of one number; of two different ones the family's other name wins.
const char* key_of_experts(const ConfigKeys& keys, ModelFamily family) {
  if (is_deepseek(family)) return "n_routed_experts";
  const bool qwen = family == ModelFamily::qwen3_moe;
  const char* own = qwen ? "num_experts" : "num_local_experts";
  const char* other = qwen ? "num_local_experts" : "num_experts";
  return keys.has(other) ? other : own;
}

void read_experts(const ConfigKeys& keys, ModelFamily family, ModelConfig& m) {
  if (is_deepseek(family)) return read_deepseek_experts(keys, family, m.moe);
  m.moe.experts = keys.whole(key_of_experts(keys, family), any_count);
  m.moe.chosen = keys.whole("num_experts_per_tok", any_count);
  if (family == ModelFamily::mixtral) {
    m.moe.ffn = m.ffn;
    m.moe.balance.switch_loss = keys.number_or("router_aux_loss_coef", 0.001);
    return;
  }
  m.moe.ffn = keys.whole("moe_intermediate_size", any_width);
  m.moe.renormalise = keys.flag_or("norm_topk_prob", false);
  m.moe.every = keys.whole_or("decoder_sparse_step", 1, any_layers);
  m.moe.shift = 1;
  m.moe.first_dense = read_dense_layers(keys);
  m.moe.balance.global_batch = keys.number_or("router_aux_loss_coef", 0.001);
}

// Of a key that may be missing: then the family's number counts.
[[noreturn]] void refuse_number(const ConfigKeys& keys, const char* key, int64_t counts,
                                std::string_view why) {
  keys.refuse(key, keys.has(key) ? cat("but ", why)
                                 : cat("counts as ", counts, " in this family, and ", why));
}

// The rules of MoeConfig::validate() between the experts' keys, in the file's words.
void check_experts(const ConfigKeys& keys, ModelFamily family, const MoeConfig& moe) {
  const std::string experts = cat(key_of_experts(keys, family), ", ", moe.experts);
  if (moe.chosen > moe.experts) {
    keys.refuse("num_experts_per_tok", cat("but must be at most ", experts));
  }
  if (moe.experts % moe.groups != 0) {
    refuse_number(keys, "n_group", moe.groups, cat("must divide ", experts));
  }
  const int64_t size = moe.experts / moe.groups;
  if (moe.groups_chosen > moe.groups) {
    refuse_number(keys, "topk_group", moe.groups_chosen,
                  cat("must be at most n_group, ", moe.groups));
  }
  if (moe.groups_chosen * size < moe.chosen) {
    refuse_number(keys, "topk_group", moe.groups_chosen,
                  cat("so many groups of ", counted(size, "expert"),
                      " hold fewer than num_experts_per_tok, ", moe.chosen));
  }
  if (moe.group_score == "top2" && moe.groups > 1 && size < 2) {
    refuse_number(keys, "n_group", moe.groups,
                  cat("leaves groups of one expert of ", experts,
                      ": this family scores a group by its two best"));
  }
  if (moe.scaling <= 0) keys.refuse("routed_scaling_factor", "but must be above 0");
}

// The ranges of the model's own config: beyond them no run could use what was read.
struct RangeCheck {
  const std::string& path;
  std::string prefix;

  template <class T>
  void operator()(std::string_view name, T& value, const Field& field) {
    if constexpr (Section<T>) {
      value.visit(RangeCheck{.path = path, .prefix = cat(prefix, name, ".")});
    } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
      const auto number = static_cast<double>(value);
      if (number >= field.min && number <= field.max) return;
      fail_data(cat(path, ": makes ", prefix, name, " ", value, ", which must be from ", field.min,
                    " to ", field.max, " here"));
    }
  }
};

void require_range(const std::string& path, ModelConfig& model) {
  model.visit(RangeCheck{.path = path, .prefix = "model."});
}

Dtype read_dtype(const ConfigKeys& keys) {
  const char* key = keys.has("dtype") ? "dtype" : "torch_dtype";
  std::string name = keys.text_or(key, "float32");
  if (name.starts_with("torch.")) name.erase(0, 6);
  if (name == "bfloat16") return Dtype::bf16;
  if (name == "float16") return Dtype::f16;
  if (name != "float32") keys.refuse(key, "but must be \"float32\", \"bfloat16\" or \"float16\"");
  return Dtype::f32;
}

Fp8Blocks read_blocks(const ConfigKeys& keys) {
  if (!keys.has("quantization_config")) return {};
  const ConfigKeys q = keys.object("quantization_config");
  const char* only = "but of quantised weights only FP8 (E4M3) with scales of blocks are read";
  if (q.text_or("quant_method", "") != "fp8") q.refuse("quant_method", only);
  if (q.text_or("fmt", "e4m3") != "e4m3") q.refuse("fmt", only);
  const std::vector<int64_t> size = q.wholes("weight_block_size", any_width);
  if (size.size() != 2) q.refuse("weight_block_size", only);
  return {.rows = size[0], .columns = size[1]};
}

}  // namespace

std::string_view model_type_of(ModelFamily family) {
  return names.at(static_cast<size_t>(family)).type;
}
std::string_view architecture_of(ModelFamily family) {
  return names.at(static_cast<size_t>(family)).architecture;
}
bool is_deepseek(ModelFamily family) {
  return family == ModelFamily::deepseek_v2 || family == ModelFamily::deepseek_v3;
}

bool has_sparse_layers(const ModelConfig& model) {
  for (int64_t i = 0; i < model.layers; ++i) {
    if (model.moe.sparse(i)) return true;
  }
  return false;
}

HuggingFaceConfig parse_hugging_face_config(std::string_view json, const std::string& path) {
  const ConfigKeys keys(json, path);
  HuggingFaceConfig config;
  config.family = read_family(keys);
  warn_of_architecture(keys, config);
  require_plain(keys);
  ModelConfig& m = config.model;
  m.layers = keys.whole("num_hidden_layers", any_layers);
  m.hidden = keys.whole("hidden_size", any_width);
  m.ffn = keys.whole("intermediate_size", any_width);
  m.vocabulary = keys.whole("vocab_size", any_vocabulary);
  m.max_positions = keys.whole("max_position_embeddings", any_positions);
  m.tied_embeddings = keys.flag_or("tie_word_embeddings", false);
  m.norm_epsilon =
      keys.number_or("rms_norm_eps", config.family == ModelFamily::mixtral ? 1e-5 : 1e-6);
  if (m.norm_epsilon < 0 || m.norm_epsilon > 1) keys.refuse("rms_norm_eps", "but must be 0 to 1");
  if (m.norm_epsilon == 0) {
    config.warnings.push_back(
        cat(path, ": \"rms_norm_eps\" is 0, so that a row of zeros becomes NaN"));
  }
  if (is_deepseek(config.family)) {
    read_latent(keys, m);
  } else {
    read_attention(keys, config.family, m);
  }
  m.rope = read_rope(keys, config.family == ModelFamily::mixtral ? 1e6 : 1e4, m.max_positions);
  if (config.family == ModelFamily::mixtral || config.family == ModelFamily::qwen3_moe ||
      is_deepseek(config.family)) {
    read_experts(keys, config.family, m);
    check_experts(keys, config.family, m.moe);
  }
  if (config.family == ModelFamily::deepseek_v3) {
    m.mtp.depth = read_prediction_depth(keys);
  }
  // What such a file says of experts is of none, and need not be what others have.
  if (is_deepseek(config.family) && m.moe.first_dense >= m.layers) m.moe = {};
  require_range(keys.path(), m);
  config.dtype = read_dtype(keys);
  config.blocks = read_blocks(keys);
  config.begin_ids = keys.wholes("bos_token_id", any_id);
  config.end_ids = keys.wholes("eos_token_id", any_id);
  return config;
}

}  // namespace shoestring
