#pragma once
// A sparse mixture of experts: routed and shared SwiGLU experts (DeepSeekMoE, DeepSeek-V3 report
// section 2.1.2; Qwen3-MoE; Mixtral). Letters: E experts, K chosen a token, m inner width.

#include <cstdint>
#include <string>

#include "core/fields.h"

namespace shoestring {

// What keeps the experts evenly used. Every term may be on or off.
struct BalanceConfig {
  double bias_speed = 0;  // gamma of the auxiliary-loss-free bias
  bool bias_centred = false;
  double sequence = 0, switch_loss = 0, global_batch = 0, z_loss = 0;

  template <class V>
  void visit(V&& v) {
    v("bias_speed", bias_speed,
      Field{.help = "step of the selection bias towards less used experts after each update "
                    "(DeepSeek-V3: 0.001); 0: no bias",
            .min = 0,
            .max = 1});
    v("bias_centred", bias_centred,
      Field{.help = "subtract the mean of the bias's change (Moonlight)"});
    v("sequence", sequence,
      Field{.help = "coefficient of the balance loss within each sequence (DeepSeek-V3: 1e-4)",
            .min = 0,
            .max = 1e6});
    v("switch_loss", switch_loss,
      Field{.help = "coefficient of the Switch balance loss of a micro-batch (Mixtral: 0.02)",
            .min = 0,
            .max = 1e6});
    v("global_batch", global_batch,
      Field{.help = "coefficient of the balance loss with the counts of all ranks' micro-batches "
                    "so far in the step (Qwen3: 0.001)",
            .min = 0,
            .max = 1e6});
    v("z_loss", z_loss,
      Field{.help = "coefficient of the mean squared log-sum-exp of router logits",
            .min = 0,
            .max = 1e6});
  }
};

struct MoeConfig {
  int64_t experts = 0;  // E; 0: the model is dense
  int64_t chosen = 2;   // K
  int64_t ffn = 0;      // m
  int64_t shared = 0;
  int64_t first_dense = 0, every = 1, shift = 0;
  std::string scores = "softmax";
  int64_t groups = 1, groups_chosen = 1;
  std::string group_score = "top2";
  bool renormalise = true;
  double scaling = 1;
  double capacity = 0;
  BalanceConfig balance = {};

  bool on() const { return experts > 0; }
  bool sparse(int64_t layer) const {
    return on() && layer >= first_dense && (layer + shift) % every == 0;
  }

  template <class V>
  void visit(V&& v) {
    v("experts", experts,
      Field{.help = "routed experts of a sparse layer; 0: dense", .min = 0, .max = 1 << 16});
    v("chosen", chosen, Field{.help = "routed experts of a token", .min = 1, .max = 1 << 16});
    v("ffn", ffn, Field{.help = "inner width of one expert", .min = 0, .max = 1 << 24});
    v("shared", shared,
      Field{.help = "experts that every token passes, as one mlp of shared * ffn",
            .min = 0,
            .max = 1 << 16});
    v("first_dense", first_dense, Field{.help = "dense layers at the start", .min = 0, .max = 1e5});
    v("every", every,
      Field{.help = "of the others, layer l is sparse where (l + shift) % every == 0",
            .min = 1,
            .max = 1e5});
    v("shift", shift, Field{.help = "see every (Qwen3-MoE: 1)", .min = 0, .max = 1e5});
    v("scores", scores,
      Field{.help = "of the router's logits: sigmoid (DeepSeek-V3), or softmax over all experts",
            .choices = "softmax|sigmoid"});
    v("groups", groups,
      Field{.help = "groups of consecutive experts (nodes)", .min = 1, .max = 1 << 16});
    v("groups_chosen", groups_chosen,
      Field{.help = "groups that a token's experts may come from", .min = 1, .max = 1 << 16});
    v("group_score", group_score,
      Field{.help = "a group counts by its two best scores' sum (DeepSeek-V3) or its best (V2)",
            .choices = "top2|max"});
    v("renormalise", renormalise,
      Field{.help = "divide the chosen scores by their sum to make the gates"});
    v("scaling", scaling,
      Field{.help = "factor on the gates (DeepSeek-V3: 2.5)", .min = 0, .max = 1e6});
    v("capacity", capacity,
      Field{.help =
                "rows an expert takes of a micro-batch, as a multiple of the even share; beyond "
                "it the lowest gates are dropped, counted and logged; 0: nothing is dropped",
            .min = 0,
            .max = 1e6});
    v("balance", balance, Field{.help = "what keeps the experts evenly used"});
  }
  void validate(Complaints& c) const;
};

}  // namespace shoestring
