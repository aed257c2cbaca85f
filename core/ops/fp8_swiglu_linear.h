#pragma once
// fp8_swiglu_linear: y = swiglu(gu) w^T, the second half of an mlp under an FP8 recipe that keeps
// gate and up in FP8 and makes their product again in the backward pass (DeepSeek-V3 report,
// section 3.3.3). gu [T, 2 f], w [d, f], y [T, d]. The forward pass reads gu itself; both gradients
// read gu' = what FP8 kept of it, in the input's encoding of the recipe:
//
// (with an edge behind the layer y and dy cross it, core/ops/crossing_linear.h):
//
//   dp = dy w,  dgu = dp * d swiglu / d gu at gu',  dw += dy^T swiglu(gu')

#include "core/fp8/layer.h"
#include "core/owing_op.h"
#include "core/row_travel.h"

namespace shoestring {

struct Fp8SwigluLinear {
  static constexpr std::string_view name = "fp8_swiglu_linear";
  static constexpr int num_inputs = 1;   // gu
  static constexpr int num_outputs = 1;  // y
  static constexpr int num_weights = 1;  // w
  struct Attributes {
    Fp8Layer* layer = nullptr;  // outlives the tape
    Edges edges = {};
  };
  struct InputSaved {
    Tensor codes, scales;
    template <class F>
    void each(F&& f) {
      f(codes), f(scales);
    }
  };
  struct WeightSaved {
    Tensor codes, scales;
    Tensor product;  // only while a probe compares
    template <class F>
    void each(F&& f) {
      f(codes), f(scales), f(product);
    }
  };
  using Owed = Fp8Kept;

  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<1>& gu,
                            const Tensors<1>& w, InputSaved& input, WeightSaved& weight);
  static Tensors<1> grad_input(Stream& stream, const Attributes& attributes,
                               const InputSaved& input, const Tensors<1>& w, const Tensors<1>& dy,
                               Owed& owed);
  static bool refill(Stream& stream, const Attributes& attributes, const Tensors<1>& gu,
                     InputSaved& input, WeightSaved& weight);
  static void grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                          const Owed& owed, const Tensors<1>& dw);
};
static_assert(OwingOp<Fp8SwigluLinear>);

}  // namespace shoestring
