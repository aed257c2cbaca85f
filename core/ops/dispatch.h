#pragma once
// dispatch: a copy of each token's row for each expert that it goes to, sorted by expert and within
// an expert by token. T tokens, K chosen, E experts, R = T K rows.
//
//   inputs   x [T, d] f32, bf16 or f64; ids i32 [T, K]; gates [T, K], which decide who is dropped
//   outputs  rows [R, d], type of x; offsets i32 [E + 1]: expert e has rows [offsets_e,
//            offsets_{e+1}); row_of i32 [T, K]: the row of each choice, -1 where it was dropped
//
// Capacity: an expert takes at most ceil(capacity T K / E) rows; beyond it the choices with the
// lowest gates are dropped (ties: the later token). Rows behind offsets_E are zeros.
// Gradient: dx_t = sum over k of drows[row_of_tk], in the order of k in f32 (f64), rounded once.

#include "core/op.h"

namespace shoestring {

struct Dispatch {
  static constexpr std::string_view name = "dispatch";
  static constexpr int num_inputs = 3, num_outputs = 3;
  struct Attributes {
    int64_t experts = 0;
    double capacity = 0;  // 0: nothing is dropped
  };
  struct Saved {
    Tensor row_of;
    template <class F>
    void each(F&& f) {
      f(row_of);
    }
  };
  static Tensors<3> forward(Stream&, const Attributes&, const Tensors<3>& inputs, Saved&);
  static Tensors<3> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<3>& dy);
};
static_assert(PlainOp<Dispatch>);

// The most rows that an expert takes of `choices` choices (T K) where there is a capacity.
int64_t rows_of_capacity(const Dispatch::Attributes& attributes, int64_t choices);

// Where the rows go, without the rows: for exchanges that send tokens elsewhere.
struct DispatchLayout {
  Tensor offsets, row_of;  // as above
  Tensor choice_of;        // i32 [R]: the choice (t K + k) of each row, -1 behind offsets_E
};
DispatchLayout lay_out_dispatch(Stream& stream, const Dispatch::Attributes& attributes,
                                const Tensor& ids, const Tensor& gates);

}  // namespace shoestring
