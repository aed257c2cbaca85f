#pragma once
// e5m6_attention: attention (core/ops/attention.h) whose output is kept in E5M6 alone. Its backward
// pass and the weight gradient of the product behind it read the same 12 bits (DeepSeek-V3 report,
// section 3.3.3: "also used in the backward pass of the attention operator").
//
// o goes forward as attention made it. Kept is o' = o in E5M6 with a power of two for each 1 x 128
// tile (core/fp8/e5m6.h), and the backward pass takes o' for o, which it needs for the sums
// D_i = sum_j do_ij o'_ij alone.

#include "core/op.h"
#include "core/ops/attention.h"

namespace shoestring {

struct E5M6Attention {
  static constexpr std::string_view name = "e5m6_attention";
  static constexpr int num_inputs = 4;  // as of Attention; f32 or bf16
  static constexpr int num_outputs =
      3;  // o; codes and scales of o', through which no gradient goes
  using Attributes = Attention::Attributes;
  struct Saved {
    Tensor q, k, v, first_key, codes, scales, log_sum_exp;
    template <class F>
    void each(F&& f) {
      f(q), f(k), f(v), f(first_key), f(codes), f(scales), f(log_sum_exp);
    }
  };
  static Tensors<3> forward(Stream& stream, const Attributes& attributes, const Tensors<4>& x,
                            Saved& saved);
  // As Attention's, from dy[0] alone.
  static Tensors<4> grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                               const Tensors<3>& dy);
};
static_assert(PlainOp<E5M6Attention>);

}  // namespace shoestring
