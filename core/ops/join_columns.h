#pragma once
// join_columns: y [T, a + b] = [first ; second] of first [T, a] and second [T, b], row by row.
// f32, bf16 or f64; the gradient cuts at the same place.

#include "core/op.h"

namespace shoestring {

struct JoinColumns {
  static constexpr std::string_view name = "join_columns";
  static constexpr int num_inputs = 2, num_outputs = 1;
  struct Attributes {
    int64_t first = 0;  // a, where the gradient is cut
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<JoinColumns>);

}  // namespace shoestring
