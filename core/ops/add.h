#pragma once
// y = x + multiplier * delta: the residual sum by itself. Norms usually fuse it; recompute regions
// that start from the sum need it as a value of its own.

#include "core/op.h"

namespace shoestring {

struct Add {
  static constexpr std::string_view name = "add";
  static constexpr int num_inputs = 2;
  static constexpr int num_outputs = 1;
  struct Attributes {
    double multiplier = 1;
  };
  using Saved = NothingSaved;
  // x, delta: same shape and type (f32, bf16, f64). Summed in f32 (f64), rounded once.
  static Tensors<1> forward(Stream& stream, const Attributes& a, const Tensors<2>& x, Saved& saved);
  static Tensors<2> grad_input(Stream& stream, const Attributes& a, const Saved& saved,
                               const Tensors<1>& dy);
};
static_assert(PlainOp<Add>);

}  // namespace shoestring
