#pragma once
// crossing_linear: y = out(in(x) w^T), a linear together with the boundaries beside it, so that
// rows travel while others are multiplied (core/row_travel.h). Shapes as in core/ops/linear.h, with
// x [T_in, I] before the edge `in` and y [T_out, O] behind `out`; a product of rows is the one that
// linear makes of them.
// Gradients: g = out*(dy), dx = in*(g w), dw += g^T in(x). Both factors of dw are kept.

#include "core/owing_op.h"
#include "core/row_travel.h"

namespace shoestring {

struct CrossingLinear {
  static constexpr std::string_view name = "crossing_linear";
  static constexpr int num_inputs = 1;   // x
  static constexpr int num_outputs = 1;  // y
  static constexpr int num_weights = 1;  // w
  struct Attributes {
    bool exact = false;  // products in exact mode (core/matmul.h)
    Edges edges = {};    // outlive the tape
  };
  using InputSaved = NothingSaved;
  struct WeightSaved {
    Tensor x;  // in(x)
    template <class F>
    void each(F&& f) {
      f(x);
    }
  };
  struct Owed {
    Tensor dy;  // out*(dy)
    template <class F>
    void each(F&& f) {
      f(dy);
    }
  };

  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                            const Tensors<1>& w, InputSaved& input, WeightSaved& weight);
  static Tensors<1> grad_input(Stream& stream, const Attributes& attributes,
                               const InputSaved& input, const Tensors<1>& w, const Tensors<1>& dy,
                               Owed& owed);
  static void grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                          const Owed& owed, const Tensors<1>& dw);
};
static_assert(OwingOp<CrossingLinear>);

}  // namespace shoestring
