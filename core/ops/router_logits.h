#pragma once
// router_logits: the logits of a router, x w^T with the result kept wide, because the choice of
// experts hangs on small differences (DeepSeek-V3 report, section 2.1.2; routers compute in f32).
//
//   input x [T, d] f32, bf16 or f64; weight w [E, d], same type -> logits [T, E], f32 (f64 for f64)
//
// Sums are f32. Gradients: dx = dlogits w, made in f32 and rounded once to the type of x;
// dw += dlogits^T x, the operands widened to f32.

#include <string_view>

#include "core/op.h"

namespace shoestring {

struct RouterLogits {
  static constexpr std::string_view name = "router_logits";
  static constexpr int num_inputs = 1, num_outputs = 1, num_weights = 1;
  struct Attributes {
    bool exact = false;  // products in exact mode (core/matmul.h)
  };
  using InputSaved = NothingSaved;
  struct WeightSaved {
    Tensor x;
    template <class F>
    void each(F&& f) {
      f(x);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, const Tensors<1>& w,
                            InputSaved&, WeightSaved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const InputSaved&, const Tensors<1>& w,
                               const Tensors<1>& dy);
  static void grad_weight(Stream&, const Attributes&, const WeightSaved&, const Tensors<1>& dy,
                          const Tensors<1>& dw);
};
static_assert(WeightedOp<RouterLogits>);

}  // namespace shoestring
