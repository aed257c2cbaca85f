#pragma once
// dispatch: a copy of each token's row for each expert that it goes to, sorted by expert and within
// an expert by token. T tokens, K chosen, E experts, R = T K rows.
//
//   inputs   x [T, d] f32, bf16 or f64; ids i32 [T, K], -1 where the choice is dropped
//            (core/ops/drop_choices.h)
//   outputs  rows [R, d], type of x; offsets i32 [E + 1]: expert e has rows [offsets_e,
//            offsets_{e+1}); row_of i32 [T, K]: the row of each choice, -1 where it was dropped
//
// Rows behind offsets_E are zeros.
// Gradient: dx_t = sum over k of drows[row_of_tk], in the order of k in f32 (f64), rounded once.

#include "core/op.h"

namespace shoestring {

struct Dispatch {
  static constexpr std::string_view name = "dispatch";
  static constexpr int num_inputs = 2, num_outputs = 3;
  struct Attributes {
    int64_t experts = 0;
  };
  struct Saved {
    Tensor row_of;
    template <class F>
    void each(F&& f) {
      f(row_of);
    }
  };
  static Tensors<3> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<3>& dy);
};
static_assert(PlainOp<Dispatch>);

// Where the rows go, without the rows: for exchanges that send tokens elsewhere.
struct DispatchLayout {
  Tensor offsets, row_of;  // as above
  Tensor choice_of;        // i32 [R]: the choice (t K + k) of each row, -1 behind offsets_E
};
DispatchLayout lay_out_dispatch(Stream& stream, const Dispatch::Attributes& attributes,
                                const Tensor& ids);

}  // namespace shoestring
