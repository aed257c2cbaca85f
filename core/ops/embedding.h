#pragma once
// embedding: rows of a table.
//
//   input  tokens i32 [T];  weight [V, d]  ->  x [T, d] = multiplier * weight[tokens]
//
// A token id outside [0, V) is a data error that names its position. The weight's gradient: for
// each token the rows of dx at its positions are summed in order of position, and the sum is added
// to dw in one addition, whatever the number of threads (exact mode counts on both).

#include "core/op.h"

namespace shoestring {

struct Embedding {
  static constexpr std::string_view name = "embedding";
  static constexpr int num_inputs = 1, num_outputs = 1, num_weights = 1;
  struct Attributes {
    double multiplier = 1;
    // Of a part of the table, rows [first, first + weight rows) of `vocabulary`: other tokens' rows
    // of x are zeros. vocabulary 0: the table is whole.
    int64_t first = 0, vocabulary = 0;
  };
  using InputSaved = NothingSaved;
  struct WeightSaved {
    Tensor tokens;
    template <class F>
    void each(F&& f) {
      f(tokens);
    }
  };
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& tokens,
                            const Tensors<1>& weight, InputSaved&, WeightSaved&);
  // Token ids have no gradient: an empty tensor.
  static Tensors<1> grad_input(Stream&, const Attributes&, const InputSaved&,
                               const Tensors<1>& weight, const Tensors<1>& dy);
  // dw [V, d] f32 (or f64 for f64) is added to.
  static void grad_weight(Stream&, const Attributes&, const WeightSaved&, const Tensors<1>& dy,
                          const Tensors<1>& dw);
};
static_assert(WeightedOp<Embedding>);

}  // namespace shoestring
