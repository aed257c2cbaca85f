#pragma once
// The shape and the scales of a decoder: Llama 2/3, SmolLM2, Qwen2/2.5, Qwen3, Qwen3-MoE, Mixtral,
// DeepSeek-V2 and V3 are settings of one struct, not classes.

#include <cstdint>
#include <string>

#include "core/fields.h"
#include "core/layers/mla_config.h"
#include "core/layers/moe_config.h"
#include "core/layers/mtp_config.h"
#include "core/ops/rope.h"

namespace shoestring {

// Standard deviations of the initial weights, by class. `depth_scaled` divides the two matrices
// that write into the residual stream (attention output, mlp down) by sqrt(2 * layers).
struct InitConfig {
  double embedding = 0.02, hidden = 0.02, head = 0.02;
  bool depth_scaled = true;
  template <class V>
  void visit(V&& v) {
    v("embedding", embedding,
      Field{.help = "deviation of the token embedding", .min = 0, .max = 1000});
    v("hidden", hidden, Field{.help = "deviation of the blocks' matrices", .min = 0, .max = 1000});
    v("head", head,
      Field{.help = "deviation of the output head when it is not tied", .min = 0, .max = 1000});
    v("depth_scaled", depth_scaled,
      Field{.help = "divide residual-writing matrices' deviation by sqrt(2 * layers)"});
  }
};

// Factors on the learning rate, by class; muP sets hidden = base width / width.
struct LrMultipliers {
  double embedding = 1, hidden = 1, head = 1, gain = 1, bias = 1;
  template <class V>
  void visit(V&& v) {
    v("embedding", embedding,
      Field{.help = "factor for the token embedding", .min = 0, .max = 1e6});
    v("hidden", hidden, Field{.help = "factor for the blocks' matrices", .min = 0, .max = 1e6});
    v("head", head, Field{.help = "factor for the output head", .min = 0, .max = 1e6});
    v("gain", gain, Field{.help = "factor for norm gains", .min = 0, .max = 1e6});
    v("bias", bias, Field{.help = "factor for biases", .min = 0, .max = 1e6});
  }
};

struct ModelConfig {
  int64_t layers = 4, hidden = 256, ffn = 704, heads = 4, kv_heads = 2, head_dim = 0;
  int64_t vocabulary = 0;  // 0: the token store's
  int64_t max_positions = 2048;
  bool tied_embeddings = false, qkv_bias = false, qk_norm = false;
  double norm_epsilon = 1e-5;
  int64_t window = 0;
  double attention_scale = 0;  // 0: 1 / sqrt(head_dim)
  double embedding_multiplier = 1, residual_multiplier = 1, output_multiplier = 1;
  RopeConfig rope = {};
  InitConfig init = {};
  LrMultipliers lr_multipliers = {};
  MlaConfig mla = {};
  MoeConfig moe = {};
  MtpConfig mtp = {};

  int64_t dim_of_head() const { return head_dim > 0 ? head_dim : hidden / heads; }
  // Of all heads' outputs together.
  int64_t attention_width() const { return heads * (mla.on() ? mla.v_dim : dim_of_head()); }
  int64_t rotated_dims() const { return mla.on() ? mla.rope_dim : dim_of_head(); }
  double scale_of_attention() const;

  template <class V>
  void visit(V&& v) {
    v("layers", layers, Field{.help = "number of blocks", .min = 1, .max = 1e5});
    v("hidden", hidden, Field{.help = "width of the residual stream", .min = 1, .max = 1 << 24});
    v("ffn", ffn, Field{.help = "inner width of the SwiGLU mlp", .min = 1, .max = 1 << 24});
    v("heads", heads, Field{.help = "query heads", .min = 1, .max = 1 << 16});
    v("kv_heads", kv_heads,
      Field{.help = "key and value heads; divides heads", .min = 1, .max = 1 << 16});
    v("head_dim", head_dim,
      Field{.help = "width of one head; 0: hidden / heads", .min = 0, .max = 1 << 16});
    v("vocabulary", vocabulary,
      Field{.help = "rows of embedding and head; 0: the tokenizer's size, rounded up to 64",
            .unit = "tokens",
            .min = 0,
            .max = (1LL << 31) - 1});
    v("max_positions", max_positions,
      Field{.help = "longest sequence the rotary table covers",
            .unit = "tokens",
            .min = 1,
            .max = 1 << 30});
    v("tied_embeddings", tied_embeddings, Field{.help = "the head is the embedding's matrix"});
    v("qkv_bias", qkv_bias, Field{.help = "biases on q, k and v (Qwen2)"});
    v("qk_norm", qk_norm, Field{.help = "RMSNorm over each head of q and k (Qwen3)"});
    v("norm_epsilon", norm_epsilon, Field{.help = "added to the mean square", .min = 0, .max = 1});
    v("window", window,
      Field{.help = "sliding attention window, itself included; 0: none",
            .unit = "tokens",
            .min = 0,
            .max = 1 << 30});
    v("attention_scale", attention_scale,
      Field{.help = "factor on q k^T; 0: 1 / sqrt(head_dim) (muP: 1 / head_dim)",
            .min = 0,
            .max = 1e6});
    v("embedding_multiplier", embedding_multiplier,
      Field{.help = "factor on the embedding", .min = -3e38, .max = 3e38});
    v("residual_multiplier", residual_multiplier,
      Field{.help = "factor on what each sub-layer adds to the residual stream",
            .min = -3e38,
            .max = 3e38});
    v("output_multiplier", output_multiplier,
      Field{.help = "factor on the logits", .min = -3e38, .max = 3e38});
    v("rope", rope, Field{.help = "rotary position embedding"});
    v("init", init, Field{.help = "initial deviations"});
    v("lr_multipliers", lr_multipliers, Field{.help = "learning-rate factors by class"});
    v("mla", mla, Field{.help = "latent attention (DeepSeek-V2, V3)"});
    v("moe", moe, Field{.help = "sparse mixture of experts"});
    v("mtp", mtp, Field{.help = "prediction of further tokens"});
  }
  void validate(Complaints& c) const;
};

}  // namespace shoestring
