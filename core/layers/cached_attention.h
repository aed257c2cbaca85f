#pragma once
// The attention core of generation: keeps what every layer needs of a set of sequences' tokens, so
// that one new token costs one row of work. Prefill runs the ordinary attention and remembers; a
// decode step appends one row per sequence and attends over what is kept.
//
// Grouped-query attention keeps keys and values. Latent attention keeps d_c + r numbers a token,
// [latent ; shared key], and works in the latent's space: the up-projection of keys is absorbed
// into the query and that of values is applied to the attended latent (DeepSeek-V2, section 2.1.2),
//
//   score_i(t) = (W^UK_i^T q^C_i) . c_t + q^R_i . k^R_t,   o_i = W^UV_i sum_t p_i(t) c_t

#include <vector>

#include "core/layers/attention.h"

namespace shoestring {

// The rows of one sequence that its new token sees, in one layer.
struct KeptSequence {
  Tensor k, v;
  int64_t begin = 0, count = 0;
};

class CachedAttention : public AttentionCore {
 public:
  // Room for `sequences` sequences of up to `capacity` tokens in `layers` layers.
  CachedAttention(Device& device, int64_t layers, int64_t sequences, int64_t capacity);

  // The next forward pass holds the whole prompt of one sequence (batch 1).
  void prefill(int64_t sequence);
  // The next forward pass holds one new token of each listed sequence (length 1), in this order.
  void decode(std::vector<int64_t> sequences);
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  int64_t bytes() const;

  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor& first_key) override;
  Value run_latent(Tape& tape, const LatentAttention& a) override;

 private:
  // [capacity, kv_heads * head_dim] and [capacity, kv_heads * v_head_dim], or in `k` alone
  // [capacity, d_c + r].
  struct Rows {
    Tensor k, v;
  };
  size_t index_of(int layer, int64_t sequence) const;
  // Appends the rows of `parts`, side by side, to the layer's tensor `which` of each active
  // sequence: all of them to one in a prefill, the i-th to the i-th in a decode step.
  void append(const AttentionShape& shape, Tensor Rows::*which, const std::vector<Tensor>& parts);
  void check_pass(const Tape& tape, const AttentionShape& shape) const;
  void end_layer(const AttentionShape& shape);  // the last one lengthens the sequences
  std::vector<KeptSequence> kept(const AttentionShape& shape) const;

  Device* device_;
  int64_t layers_, capacity_;
  std::vector<Rows> cache_;  // [layer * sequences + sequence]
  std::vector<int64_t> lengths_;
  std::vector<int64_t> active_;
  bool prefilling_ = true;
  int latent_layer_ = -1;  // whose latents a prefill kept last
};

}  // namespace shoestring
