#pragma once
// Multi-head latent attention (DeepSeek-V2, section 2.1; DeepSeek-V3 report, section 2.1.1,
// equations 1 to 11, with the norms of both latents that its section 4.2 names):
//
//   c^Q = norm(W^DQ x), q = W^UQ c^Q        or, without a query latent, q = W^Q x
//   [c ; k^R] = W^DKV x, c^KV = norm(c)     k^R is not normalised, all heads share it
//   [k^C_i ; v_i] = W^UKV c^KV              per head i: first the key's dims, then the value's
//   q_i = [q^C_i ; RoPE(q^R_i)], k_i = [k^C_i ; RoPE(k^R)], pairs interleaved
//   u = W^O [o_1 ; ... ; o_n], o_i = attention of q_i, k_i, v_i with shape.scale
//
// Under the policy `attention` everything from the latents on is made again in the backward pass;
// under `norms` the normalised latents are.

#include "core/layers/context.h"
#include "core/layers/linear.h"

namespace shoestring {

struct MlaLayer {
  AttentionShape shape;  // q_heads = kv_heads = n, head_dim = nope + rope; batch, length: later
  int64_t nope = 0, rope = 0;      // dims of a head's query and key without and with position
  double norm_epsilon = 1e-6;      // of the latents: not the config's, in any released model
  LinearLayer q_down;              // W^DQ; no weight: q reads x itself
  const Param* q_gain = nullptr;   // [d_c'], with q_down
  LinearLayer q;                   // W^UQ or W^Q
  LinearLayer kv_down, kv_up;      // W^DKV with W^KR behind it, W^UKV
  const Param* kv_gain = nullptr;  // [d_c]
  LinearLayer output;

  Value run(LayerContext& context, const Value& x) const;  // [T, d] -> [T, d]

 private:
  Value run_core(LayerContext& context, const Value& q_source, const Value& kv) const;
  Value run_query(LayerContext& context, const Value& source) const;
};

}  // namespace shoestring
