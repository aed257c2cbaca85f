#pragma once
// fp8_linear: y = x w^T with the products of an FP8 recipe (core/fp8/layer.h). Shapes: x [.., I],
// w [O, I], y [.., O], of one type (f32 or bf16); dw is f32 and is added to. Only the input's codes
// are kept for the weight gradient (or what else the recipe says).
// Gradients: dx = dy w, dw += dy^T x, each as the recipe multiplies.

#include "core/fp8/layer.h"
#include "core/op.h"

namespace shoestring {

struct Fp8Linear {
  static constexpr std::string_view name = "fp8_linear";
  static constexpr int num_inputs = 3;   // x; its codes and scales, empty where nothing wants them
  static constexpr int num_outputs = 1;  // y
  static constexpr int num_weights = 1;  // w
  struct Attributes {
    Fp8Layer* layer = nullptr;  // outlives the tape
  };
  using InputSaved = NothingSaved;  // the weight is handed over again
  struct WeightSaved {
    Fp8Kept x;
    template <class F>
    void each(F&& f) {
      x.each(f);
    }
  };

  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<3>& x,
                            const Tensors<1>& w, InputSaved& input, WeightSaved& weight);
  static Tensors<3> grad_input(Stream& stream, const Attributes& attributes,
                               const InputSaved& input, const Tensors<1>& w, const Tensors<1>& dy);
  static void grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                          const Tensors<1>& dy, const Tensors<1>& dw);
};
static_assert(WeightedOp<Fp8Linear>);

}  // namespace shoestring
