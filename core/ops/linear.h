#pragma once
// y = x w^T, times output_multiplier. Shapes: x [..., I], w [O, I], y [..., O].
// x, w and y have one type (f32, bf16 or f64); dw is f32 (f64 for f64) and is added to.
// Gradients: dx = dy w, dw += dy^T x, each times output_multiplier.

#include <string_view>

#include "core/op.h"

namespace shoestring {

struct Linear {
  static constexpr std::string_view name = "linear";
  static constexpr int num_inputs = 1;   // x
  static constexpr int num_outputs = 1;  // y
  static constexpr int num_weights = 1;  // w
  struct Attributes {
    bool exact = false;              // products in exact mode (core/matmul.h)
    double output_multiplier = 1.0;  // muP scales outputs of the head
  };
  using InputSaved = NothingSaved;  // the weight is handed over again
  struct WeightSaved {
    Tensor x;
    template <class F>
    void each(F&& f) {
      f(x);
    }
  };

  static Shape shape(const Shape& x, const Shape& w);
  static Tensors<1> forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                            const Tensors<1>& w, InputSaved& input, WeightSaved& weight);
  static Tensors<1> grad_input(Stream& stream, const Attributes& attributes,
                               const InputSaved& input, const Tensors<1>& w, const Tensors<1>& dy);
  static void grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& weight,
                          const Tensors<1>& dy, const Tensors<1>& dw);
  // The products of some rows into memory that exists: y = x w^T and dx = dy w.
  static void multiply(Stream& stream, const Attributes& attributes, const Tensor& x,
                       const Tensor& w, const Tensor& y);
  static void multiply_gradient(Stream& stream, const Attributes& attributes, const Tensor& dy,
                                const Tensor& w, const Tensor& dx);
};
static_assert(WeightedOp<Linear>);

}  // namespace shoestring
