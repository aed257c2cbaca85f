#pragma once
// grouped_linear: the linear layers of all experts over rows sorted by expert
// (core/ops/dispatch.h), each expert's rows times its own matrix.
//
//   inputs   x [R, I] f32, bf16 or f64; offsets i32 [E + 1]: expert e has rows [offsets_e,
//            offsets_{e+1}). With several sources (ranks whose micro-batches meet here) there are
//            E sources + 1: expert e has the rows of its `sources` segments, one behind the other
//   weight   w [E O, I], the experts' matrices one below the other, same type
//   output   y [R, O]: y_e = x_e w_e^T; rows behind offsets_E are zeros
//
// Gradients: dx_e = dy_e w_e, dw_e += dy_e^T x_e (dw is f32, f64 for f64). One product an expert,
// source and call, added in the order of the sources, without copies and padding; threads share out
// pieces of experts, so uneven loads keep them all busy. An element depends on its row, its column
// and the rows of its expert alone, and the finished product is added to dw with one rounding:
// exact mode (core/matmul.h) is the only one that trains.
// dw may keep the sources apart, for sums over ranks in the order of micro-batches: then it is
// [sources, E O I or more], a row for each source's matrices.

#include "core/op.h"

namespace shoestring {

// The gradient of one source's rows in a dw of either form; `shape`: that of w.
Tensor gradient_of_source(const Tensor& dw, const Shape& shape, int64_t source, int64_t sources);

struct GroupedLinear {
  static constexpr std::string_view name = "grouped_linear";
  static constexpr int num_inputs = 2, num_outputs = 1, num_weights = 1;
  struct Attributes {
    // Where nothing is trained: experts with few rows as thin products (core/thin_product.h), which
    // are faster and round otherwise.
    bool thin = false;
    int64_t sources = 1;
  };
  struct InputSaved {
    Tensor offsets;
    template <class F>
    void each(F&& f) {
      f(offsets);
    }
  };
  struct WeightSaved {
    Tensor x, offsets;
    template <class F>
    void each(F&& f) {
      f(x);
      f(offsets);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<2>& inputs,
                            const Tensors<1>& w, InputSaved&, WeightSaved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const InputSaved&, const Tensors<1>& w,
                               const Tensors<1>& dy);
  static void grad_weight(Stream&, const Attributes&, const WeightSaved&, const Tensors<1>& dy,
                          const Tensors<1>& dw);
};
static_assert(WeightedOp<GroupedLinear>);

}  // namespace shoestring
