#pragma once
// add_bias: y [T, n] = x + b with b [n] of x's type (the q, k, v biases of Qwen2).
// dx is dy itself; db is summed over fixed blocks of rows (core/ops/column_sums.h), so that any
// number of threads gives the same bits.

#include "core/op.h"

namespace shoestring {

struct AddBias {
  static constexpr std::string_view name = "add_bias";
  static constexpr int num_inputs = 1, num_outputs = 1, num_weights = 1;
  struct Attributes {};
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, const Tensors<1>& bias,
                            Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& bias,
                               const Tensors<1>& dy, const Tensors<1>& dbias);
};
static_assert(EagerOp<AddBias>);

}  // namespace shoestring
