#pragma once
// head_norm: RMSNorm over each head of [T, heads * head_dim] with one gain for all heads (the
// QK-norm of Qwen3, before RoPE).
//
//   input x [T, heads * head_dim], weight gain [head_dim] -> y, same shape and type as x
//
// Rounding and determinism as in rms_norm, whose kernels these are.

#include "core/op.h"

namespace shoestring {

struct HeadNorm {
  static constexpr std::string_view name = "head_norm";
  static constexpr int num_inputs = 1, num_outputs = 1, num_weights = 1;
  struct Attributes {
    double eps = 1e-6;
  };
  struct Saved {
    Tensor x, inverse;  // inverse [T * heads]
    template <class F>
    void each(F&& f) {
      f(x);
      f(inverse);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, const Tensors<1>& gain,
                            Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& gain,
                               const Tensors<1>& dy, const Tensors<1>& dgain);
};
static_assert(EagerOp<HeadNorm>);

}  // namespace shoestring
