#pragma once
// What an op is. One op is one struct of static functions in a drawer of its own (core/ops/name.h
// is the whole declaration, name.cpp holds shape rule, gradients and CPU kernels), checked at
// compile time by one of three concepts and entered through apply<Op>(tape, ...) alone
// (core/tape.h).
//
//   PlainOp     no parameters                   rope, attention, swiglu
//   EagerOp     tiny parameters (gains, biases); their gradient is made in the input phase
//   WeightedOp  matrices; grad_input (phase I) and grad_weight (phase W) are separate functions,
//   and
//               what each of them reads is saved in a struct of its own, so that the tape can let
//               go of the input phase's tensors while the weight gradient is still owed.
//
// Every Saved struct lists its tensors: template <class F> void each(F&& f) { f(x); f(inverse); }.
// Gradients may be empty tensors: dy of an output nobody used, dx of an input without a gradient
// (token ids). grad_* add weight gradients to dw (f32, same shape as the weight), never overwrite.

#include <array>
#include <concepts>
#include <string_view>

#include "core/device.h"
#include "core/tensor.h"

namespace shoestring {

template <int n>
using Tensors = std::array<Tensor, static_cast<size_t>(n)>;

// The members every op has: name, counts, attributes (plain values, no tensors of the tape).
template <class Op>
concept OpFacts = requires {
  { Op::name } -> std::convertible_to<std::string_view>;
  { Op::num_inputs } -> std::convertible_to<int>;
  { Op::num_outputs } -> std::convertible_to<int>;
  typename Op::Attributes;
};

template <class Op>
concept PlainOp = OpFacts<Op> &&
    requires(Stream& s, const typename Op::Attributes& a, const Tensors<Op::num_inputs>& x,
             typename Op::Saved& saved, const Tensors<Op::num_outputs>& dy) {
  { Op::forward(s, a, x, saved) } -> std::same_as<Tensors<Op::num_outputs>>;
  { Op::grad_input(s, a, std::as_const(saved), dy) } -> std::same_as<Tensors<Op::num_inputs>>;
};

template <class Op>
concept EagerOp = OpFacts<Op> &&
    requires(Stream& s, const typename Op::Attributes& a, const Tensors<Op::num_inputs>& x,
             const Tensors<Op::num_weights>& w, typename Op::Saved& saved,
             const Tensors<Op::num_outputs>& dy, const Tensors<Op::num_weights>& dw) {
  { Op::forward(s, a, x, w, saved) } -> std::same_as<Tensors<Op::num_outputs>>;
  {
    Op::grad_input(s, a, std::as_const(saved), w, dy, dw)
    } -> std::same_as<Tensors<Op::num_inputs>>;
};

template <class Op>
concept WeightedOp = OpFacts<Op> &&
    requires(Stream& s, const typename Op::Attributes& a, const Tensors<Op::num_inputs>& x,
             const Tensors<Op::num_weights>& w, typename Op::InputSaved& input,
             typename Op::WeightSaved& weight, const Tensors<Op::num_outputs>& dy,
             const Tensors<Op::num_weights>& dw) {
  { Op::forward(s, a, x, w, input, weight) } -> std::same_as<Tensors<Op::num_outputs>>;
  { Op::grad_input(s, a, std::as_const(input), w, dy) } -> std::same_as<Tensors<Op::num_inputs>>;
  Op::grad_weight(s, a, std::as_const(weight), dy, dw);
};

// For ops that save nothing in a phase.
struct NothingSaved {
  template <class F>
  void each(F&&) {}
};

}  // namespace shoestring
