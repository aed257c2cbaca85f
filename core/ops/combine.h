#pragma once
// combine: the experts' outputs back at their tokens, weighted by the gates. T tokens, K chosen.
//
//   inputs   rows [R, d] f32, bf16 or f64; gates [T, K] f32 (f64 for f64); row_of i32 [T, K], the
//            row of each choice or -1 where it was dropped (core/ops/dispatch.h)
//   output   y [T, d], type of rows: y_t = sum over k of gate_tk * rows[row_of_tk]
//
// Terms are added in the order of k in f32 (f64) and rounded once. Gradients:
// drows[row_of_tk] = gate_tk dy_t, rounded once (0 for rows that nobody names),
// dgates_tk = <dy_t, rows[row_of_tk]>, 0 where the choice was dropped.

#include "core/op.h"

namespace shoestring {

struct Combine {
  static constexpr std::string_view name = "combine";
  static constexpr int num_inputs = 3, num_outputs = 1;
  struct Attributes {};
  struct Saved {
    Tensor rows, gates, row_of;
    template <class F>
    void each(F&& f) {
      f(rows);
      f(gates);
      f(row_of);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<3>& inputs, Saved&);
  static Tensors<3> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<Combine>);

// y_t = sum over k of rows[row_of_tk], weighted by gates unless they are empty: combine itself, and
// the gradient of dispatch.
Tensor sum_rows(Stream& stream, std::string_view op, const Tensor& rows, const Tensor& row_of,
                const Tensor& gates);

}  // namespace shoestring
