#pragma once
// swiglu: y [T, f] = silu(gate) * up of gu [T, 2 f] (gate first, then up), the product of the MLP
// between its two matrices. f32 arithmetic on f32 and bf16 storage, one rounding; f64 runs the
// plain reference. Rows are independent: any number of threads gives the same bits.

#include "core/op.h"

namespace shoestring {

struct Swiglu {
  static constexpr std::string_view name = "swiglu";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes {};
  struct Saved {
    Tensor gu;
    template <class F>
    void each(F&& f) {
      f(gu);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& gu, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<Swiglu>);

}  // namespace shoestring
