#pragma once
// Attention of some queries to some keys, as one term of a softmax over more of them: what a rank
// does with each block of keys and values that reaches it (Liu et al. 2023, "Ring attention with
// blockwise transformers"). Same kernels as core/ops/attention.h.
//
// Which keys a query sees is given by positions: tokens of a row stand in ascending order of their
// positions on both sides, so that a query sees a run of the keys, low <= u < high. The run may be
// empty. Neither border decreases along a row.

#include "core/ops/attention.h"

namespace shoestring {

struct AttentionBlock {
  static constexpr std::string_view name = "attention_block";
  int64_t batch = 0, queries = 0, keys = 0;  // B; tokens a row, Q and K
  int64_t q_heads = 0, kv_heads = 0;         // n_q, a multiple of n_kv
  int64_t head_dim = 0, v_head_dim = 0;      // hd, hv
  double scale = 1;

  // f32 sums of f32 and bf16 operands, f64 sums of f64 ones.
  static Dtype sum_type(Dtype element) { return element == Dtype::f64 ? Dtype::f64 : Dtype::f32; }
  Shape q_shape() const { return {batch * queries, q_heads * head_dim}; }
  Shape k_shape() const { return {batch * keys, kv_heads * head_dim}; }
  Shape v_shape() const { return {batch * keys, kv_heads * v_head_dim}; }
  Shape o_shape() const { return {batch * queries, q_heads * v_head_dim}; }
  Shape log_sum_exp_shape() const { return {batch, q_heads, queries}; }
};

struct BlockOperands {
  Tensor q, k, v;    // of one type: f32, bf16 or f64
  Tensor low, high;  // i32 [B, Q], 0 <= low <= high <= K
};

// Merges the block into what was seen before: o is a softmax-weighted mean of values, log_sum_exp
// that of the scaled scores (natural logarithm), both of sum_type. Before the first block o is 0
// and log_sum_exp -infinity; a query that sees nothing leaves them as they are.
void merge_attention_block(Stream& stream, const AttentionBlock& a, const BlockOperands& x,
                           const Tensor& o, const Tensor& log_sum_exp);

// Of the whole softmax: its output, as the next op was given it, its gradient and its log_sum_exp.
struct BlockGradients {
  Tensor o, dy, log_sum_exp;
  Tensor dq, dk, dv;  // of sum_type; the block's part is added
};
void add_attention_block_gradients(Stream& stream, const AttentionBlock& a, const BlockOperands& x,
                                   const BlockGradients& g);

}  // namespace shoestring
