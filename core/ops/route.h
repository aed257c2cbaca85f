#pragma once
// route: which experts each token goes to, with which gates, and the losses that keep them evenly
// used (DeepSeek-V3 report, equations 12 to 20; DeepSeek-V2 report, section 2.2; Qwen3-MoE;
// Mixtral). Letters: T tokens = B sequences of S, E experts, K chosen, s scores, p = s / sum s.
//
//   inputs   logits [T, E] f32 or f64; bias b f32 [E], or empty: added to s in the choice alone
//   outputs  ids i32 [T, K], in falling order of what chose them, ties by the lower expert;
//            gates [T, K], type of the logits; figures f64 [2 E + 4] (RouteFigures)
//
//   s = sigmoid(logits), or softmax over all E
//   choice: the best groups by their two best s + b (or their best one), then the K best s + b of
//           these groups; the others are out, whatever their value (a mask of minus infinity)
//   gate_i = scaling s_i / (sum of the chosen s + 1e-20), or scaling s_i without renormalisation
//
// Losses have gradients but are no output: the gradient of the logits is that of the gates plus
// these, with counts as constants (c: choices of the whole micro-batch):
//   sequence  mean over sequences of sum_i f_i P_i, f_i = E / (K S) * tokens of the sequence whose
//   K
//             best s hold i (without bias and groups), P_i = mean of p_i over the sequence
//   micro     E sum_i (c_i / T) P_i (Switch Transformer; f sums to K, as in transformers' MoE)
//   global    the same with the counts of `load`; with none, those of the micro-batch
//   z         mean over tokens of (log sum_i e^logit_i)^2 (ST-MoE)
// Scale: the step's loss is a mean over the labels of the global batch, and gradients are summed
// over micro-batches and ranks. Each factor below is therefore the loss's coefficient times the
// micro-batch's share of the step, its valid labels / the step's: shares sum to one, and the sum of
// the gradients is that of coefficient * (the mean of the loss over the step).
//
// Rows are independent and sums over tokens are folded over fixed blocks: any number of threads
// gives the same bits.

#include <memory>
#include <span>
#include <vector>

#include "core/op.h"

namespace shoestring {

// How often each expert was chosen, by how many tokens.
struct ExpertLoad {
  std::vector<double> counts;
  double tokens = 0;
};

// What route tells of a micro-batch: sums over its tokens.
struct RouteFigures {
  std::span<const double> counts;         // [E]
  std::span<const double> probabilities;  // [E], of p
  double tokens = 0;
  double entropy = 0;      // of p, in nats
  double sequence = 0;     // the loss of this name; 0 when its factor is
  double squared_lse = 0;  // 0 when the z-loss's factor is

  static RouteFigures of(const Tensor& figures);
};

struct Route {
  static constexpr std::string_view name = "route";
  static constexpr int num_inputs = 2, num_outputs = 3;
  struct Attributes {
    int64_t chosen = 2, groups = 1, groups_chosen = 1;
    bool sigmoid = false;        // else softmax
    bool best_of_group = false;  // else the sum of a group's two best
    bool renormalise = true;
    double scaling = 1;
    int64_t sequences = 1;  // B
    double sequence_factor = 0, micro_factor = 0, global_factor = 0, z_factor = 0;
    std::shared_ptr<const ExpertLoad> load = {};  // read in the backward pass
  };
  struct Saved {
    Tensor logits, ids, figures;
    Tensor sequence_counts;  // f64 [B, E]; empty without the sequence loss
    template <class F>
    void each(F&& f) {
      f(logits);
      f(ids);
      f(figures);
      f(sequence_counts);
    }
  };
  static Tensors<3> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<3>& dy);
};
static_assert(PlainOp<Route>);

}  // namespace shoestring
