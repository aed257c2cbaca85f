#pragma once
// rms_norm: residual addition and RMSNorm in one pass over memory.
//
//   inputs   x [T, d], delta [T, d] or an empty tensor (then h is x itself, no copy)
//   weights  gain [d], same type as x
//   outputs  h [T, d] = x + delta_multiplier * delta,  n [T, d] = h / sqrt(mean(h^2) + eps) * gain
//
// f32 and bf16 storage with f32 arithmetic; f64 runs the plain reference. Rounding to bf16 follows
// the rule of the published models, so that their numbers are met: h is rounded, the statistics are
// f32 and taken from the rounded h, h / rms is rounded, and the product with the gain is rounded.
// The gradient of the gain is summed over fixed blocks of rows (core/ops/column_sums.h): the same
// bits for any number of threads.

#include "core/op.h"

namespace shoestring {

struct RmsNorm {
  static constexpr std::string_view name = "rms_norm";
  static constexpr int num_inputs = 2, num_outputs = 2, num_weights = 1;
  struct Attributes {
    double eps = 1e-5;
    double delta_multiplier = 1;
  };
  struct Saved {
    Tensor h, inverse;  // inverse [T]: 1 / rms, f32 (f64 for f64)
    bool has_delta = false;
    template <class F>
    void each(F&& f) {
      f(h);
      f(inverse);
    }
  };
  static Tensors<2> forward(Stream&, const Attributes&, const Tensors<2>& inputs,
                            const Tensors<1>& gain, Saved&);
  // {dx, ddelta}: one tensor for both when delta_multiplier is 1; ddelta is empty when delta was.
  // Without dn, dx is dh itself. dgain [d] f32 (or f64 for f64) is added to.
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& gain,
                               const Tensors<2>& dy, const Tensors<1>& dgain);
};
static_assert(EagerOp<RmsNorm>);

// Rows of any number with one gain of their width: what rms_norm and head_norm share. Tensors that
// may be empty say so.
struct NormForward {
  int64_t rows = 0, width = 0;
  double eps = 0, delta_multiplier = 1;
  Tensor x = {}, delta = {};  // delta may be empty
  Tensor gain = {};
  Tensor h = {};  // written; empty when delta is
  Tensor n = {}, inverse = {};
};
void norm_rows(Stream& stream, std::string_view op, const NormForward& a);

struct NormBackward {
  int64_t rows = 0, width = 0;
  double delta_multiplier = 1;
  Tensor h = {}, inverse = {}, gain = {};
  Tensor dh = {};  // may be empty
  Tensor dn = {};
  Tensor dx = {};
  Tensor ddelta = {};  // empty: the same as dx, or not wanted
  Tensor dgain = {};
};
void norm_rows_backward(Stream& stream, std::string_view op, const NormBackward& a);

}  // namespace shoestring
