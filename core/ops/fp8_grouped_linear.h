#pragma once
// fp8_grouped_linear: the linear layers of all experts over rows sorted by expert, with the
// products of an FP8 recipe (core/fp8/experts.h). Inputs x [R, I] (f32 or bf16) and offsets i32 [E
// + 1]: expert e has rows [offsets_e, offsets_{e+1}); weight w [E O, I]; output y [R, O], zeros
// behind offsets_E. Tiles restart at every expert. With several sources there are E sources + 1
// offsets (core/ops/grouped_linear.h). Where x, or dy, was sent in FP8 it comes packed
// (core/fp8/packed_rows.h), and its codes are used as they are.
//
// With `swiglu` x is gate and up [R, 2 I], and the experts read their product. Kept for the
// backward pass are then gate and up in FP8, as in core/ops/fp8_swiglu_linear.h.

#include "core/fp8/experts.h"
#include "core/owing_op.h"

namespace shoestring {

struct Fp8GroupedLinear {
  static constexpr std::string_view name = "fp8_grouped_linear";
  static constexpr int num_inputs = 2, num_outputs = 1, num_weights = 1;
  struct Attributes {
    Fp8Layer* layer = nullptr;  // outlives the tape
    bool swiglu = false;
    int64_t sources = 1;
  };
  struct InputSaved {
    Tensor offsets;
    Fp8Kept gate_up;  // with swiglu
    template <class F>
    void each(F&& f) {
      f(offsets);
      gate_up.each(f);
    }
  };
  struct WeightSaved {
    Tensor offsets;
    Fp8Kept
        x;  // gate and up with swiglu; then its values are their product, while a probe compares
    template <class F>
    void each(F&& f) {
      f(offsets);
      x.each(f);
    }
  };
  using Owed = Fp8Kept;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<2>& inputs,
                            const Tensors<1>& w, InputSaved&, WeightSaved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const InputSaved&, const Tensors<1>& w,
                               const Tensors<1>& dy, Owed&);
  static void grad_weight(Stream&, const Attributes&, const WeightSaved&, const Owed&,
                          const Tensors<1>& dw);
};
static_assert(OwingOp<Fp8GroupedLinear>);

}  // namespace shoestring
