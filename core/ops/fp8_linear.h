#pragma once
// fp8_linear: y = x w^T with the products of an FP8 recipe (core/fp8/layer.h). Shapes: x [.., I],
// w [O, I], y [.., O], of one type (f32 or bf16); dw is f32 and is added to. Only the input's codes
// are kept for the weight gradient (or what else the recipe says), and of dy its codes along the
// tokens.
// Gradients: dx = dy w, dw += dy^T x, each as the recipe multiplies. Between edges x, y and their
// gradients cross them (core/ops/crossing_linear.h).

#include "core/fp8/layer.h"
#include "core/owing_op.h"
#include "core/row_travel.h"

namespace shoestring {

struct Fp8Linear {
  static constexpr std::string_view name = "fp8_linear";
  // x; without an edge in front of the layer its FP8 codes and scales, and those of its E5M6 copy,
  // each empty where nothing wants them or nobody made them.
  static constexpr int num_inputs = 5;
  static constexpr int num_outputs = 1;  // y
  static constexpr int num_weights = 1;  // w
  struct Attributes {
    Fp8Layer* layer = nullptr;  // outlives the tape
    Edges edges = {};
  };
  using InputSaved = NothingSaved;  // the weight is handed over again
  struct WeightSaved {
    Fp8Kept x;
    template <class F>
    void each(F&& f) {
      x.each(f);
    }
  };
  using Owed = Fp8Kept;

  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<5>& x,
                            const Tensors<1>& w, InputSaved& input, WeightSaved& weight);
  static Tensors<5> grad_input(Stream& stream, const Attributes& attributes,
                               const InputSaved& input, const Tensors<1>& w, const Tensors<1>& dy,
                               Owed& owed);
  static bool refill(Stream& stream, const Attributes& attributes, const Tensors<5>& x,
                     InputSaved& input, WeightSaved& weight);
  static void grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                          const Owed& owed, const Tensors<1>& dw);
};
static_assert(OwingOp<Fp8Linear>);

}  // namespace shoestring
