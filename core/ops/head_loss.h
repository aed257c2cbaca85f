#pragma once
// head_loss: the output projection, the cross-entropy and their gradients in one go, so that the
// logits [T, V] never exist whole: rows are taken in chunks, and where gradients are wanted a
// chunk's logits become its logit gradients in place, then dx and dW, before the next chunk starts.
//
//   logits z = logit_multiplier * x W^T;  loss_t = log sum_v e^z_tv - z_t,label
//   penalty_t = z_coefficient * (log sum_v e^z_tv)^2      (z-loss, Chowdhery et al. 2022, section
//   5) dx, dW: gradients of loss_scale * sum over valid t of (loss_t + penalty_t)
//
// x [T, d] and W [V, d] are f32, bf16 or f64. Logits are f32 (f64 for f64) also in bf16; their
// gradients are rounded to x's type before the two products. Sums over tokens are f64 and in order
// of tokens.
//
// Bits: no result depends on the number of threads. Each token's loss and row of dx depend on that
// token alone (in exact mode strictly; otherwise as far as core/matmul.h keeps rows independent of
// their number). dW is the sum over chunks, in order, of each chunk's product; the rows of a chunk
// follow from V and chunk_bytes alone. Without `exact` each chunk is added to dw as it comes; with
// it the sum over chunks is formed in scratch of dw's size and added to dw in one addition, which
// is what makes a micro-batch's gradient independent of what was accumulated before it.

#include "core/ops/vocabulary_shard.h"
#include "core/tensor.h"

namespace shoestring {

struct HeadLoss {
  static constexpr std::string_view name = "head_loss";
  struct Attributes {
    double loss_scale = 1;  // 1 / valid labels of the whole step
    double logit_multiplier = 1;
    double z_coefficient = 0;
    int64_t chunk_bytes = int64_t{32} << 20;  // of logits; at least one row is taken
    bool exact = false;
    // Null: the weight has the whole vocabulary. Else W [V here, d] is this rank's part, labels are
    // global, and dx is the part's: whoever gathered x adds the ranks' up.
    const VocabularyShard* shard = nullptr;
  };
  struct Inputs {
    Tensor x, weight;
    Tensor labels;  // i32 [T]; -1: no loss at this token
  };
  struct Outputs {
    Tensor* dx = nullptr;            // made here: [T, d], x's type
    Tensor* dw = nullptr;            // [V, d] f32 (f64 for f64), added to
    Tensor* token_losses = nullptr;  // made here: f32 [T], 0 at tokens without a label
    // made here: i32 [T], the token with the largest logit, the first of equals; -1 without a label
    Tensor* greedy = nullptr;
  };
  struct Result {
    double loss_sum = 0, penalty_sum = 0;
    int64_t count = 0;              // valid labels
    int64_t correct = 0;            // no logit is above the label's
    int64_t first_not_finite = -1;  // the first token whose loss is NaN or infinite
  };
  // A label outside [-1, V) is a data error that names its token. Waits for the stream.
  static Result forward(Stream& stream, const Attributes& attributes, const Inputs& inputs,
                        const Outputs& outputs);
  // Rows of a chunk before the limit by T.
  static int64_t chunk_rows(const Attributes& attributes, int64_t vocabulary, Dtype dtype);
};

}  // namespace shoestring
