#pragma once
// Causal scaled dot-product attention with grouped query heads, document borders and an optional
// sliding window, computed block by block: scores of S x S never exist (Dao 2023,
// "FlashAttention-2"; the backward pass recomputes weights from the saved log-sum-exp).
//
//   o[t, j] = sum over u of softmax_u(scale * q[t, j] . k[u, g]) * v[u, g],  g = j / (n_q / n_kv)
//
// over the columns u that token t of its row sees: max(first_key[t], t - window + 1) <= u <= t.

#include <cstdint>
#include <string_view>

#include "core/device.h"
#include "core/op.h"
#include "core/tensor.h"

namespace shoestring {

// Inputs: q [B*S, n_q*hd], k [B*S, n_kv*hd], v [B*S, n_kv*hv], all bf16, f32 or f64, and first_key
// i32 [B, S] with 0 <= first_key[b, t] <= t, not decreasing along a row. Output: o [B*S, n_q*hv].
// bf16 sums in f32; weights are rounded to bf16 where the processor multiplies bf16.
// The same bits for any number of threads, and for a row whatever the other rows are.
struct Attention {
  static constexpr std::string_view name = "attention";
  static constexpr int num_inputs = 4;
  static constexpr int num_outputs = 1;
  struct Attributes {
    int64_t batch = 0, length = 0;         // B, S
    int64_t q_heads = 0, kv_heads = 0;     // n_q, a multiple of n_kv
    int64_t head_dim = 0, v_head_dim = 0;  // hd, hv
    double scale = 1;                      // > 0, usually hd^-1/2
    int64_t window = 0;                    // tokens seen, itself included; 0 = no limit
  };
  struct Saved {
    Tensor q, k, v, first_key, o;
    Tensor log_sum_exp;  // [B, n_q, S] f32 (f64 for f64), of the scaled scores, natural logarithm
    template <class F>
    void each(F&& f) {
      f(q), f(k), f(v), f(first_key), f(o), f(log_sum_exp);
    }
  };
  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<4>& x,
                            Saved& saved);
  // Gradients of q, k and v; an empty tensor for first_key. All empty when dy is.
  static Tensors<4> grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                               const Tensors<1>& dy);
};

static_assert(PlainOp<Attention>);

}  // namespace shoestring
