#pragma once
// A fourth kind of op beside the three of core/op.h: matrices whose weight gradient reads something
// smaller than dy, its 8-bit codes for example. grad_input (phase I) makes it, in a struct of its
// own, and the tape lets go of dy itself.
//
// Such an op has, beside what a WeightedOp has, a struct Owed that lists its tensors as the Saved
// structs do. It is empty until phase I and read by phase W alone. It may have
//   static bool refill(stream, attributes, x, input, weight)
// which makes again what forward saves, without its outputs; false: only forward can.

#include <concepts>
#include <utility>

#include "core/tape_node.h"

namespace shoestring {

template <class Op>
concept OwingOp = OpFacts<Op> &&
    requires(Stream& s, const typename Op::Attributes& a, const Tensors<Op::num_inputs>& x,
             const Tensors<Op::num_weights>& w, typename Op::InputSaved& input,
             typename Op::WeightSaved& weight, typename Op::Owed& owed,
             const Tensors<Op::num_outputs>& dy, const Tensors<Op::num_weights>& dw) {
  { Op::forward(s, a, x, w, input, weight) } -> std::same_as<Tensors<Op::num_outputs>>;
  {
    Op::grad_input(s, a, std::as_const(input), w, dy, owed)
    } -> std::same_as<Tensors<Op::num_inputs>>;
  Op::grad_weight(s, a, std::as_const(weight), std::as_const(owed), dw);
};

template <class Op>
requires OwingOp<Op>
class NodeOf<Op> : public NodeBase<Op> {
 public:
  using NodeBase<Op>::NodeBase;
  Tensors<Op::num_outputs> run_forward(Stream& stream, ParamSource& source,
                                       const Tensors<Op::num_inputs>& x) {
    return this->forward(stream, source, x, input_, weight_);
  }
  std::vector<Tensor> grad_input(Stream& stream, ParamSource& source,
                                 std::span<const Tensor> dy) override {
    const auto w = this->template weight_tensors<NodeBase<Op>::num_weights>(source);
    const auto dx = Op::grad_input(stream, this->attributes_, std::as_const(input_), w,
                                   this->template array_of<Op::num_outputs>(dy), owed_);
    return {dx.begin(), dx.end()};
  }
  bool owes_weight() const override { return true; }
  void owe(std::span<const Tensor>) override {
    input_ = {};
    this->kept_inputs.clear();
    this->kept_outputs.clear();
  }
  void grad_weight(Stream& stream, ParamSource& source) override {
    Op::grad_weight(stream, this->attributes_, std::as_const(weight_), std::as_const(owed_),
                    this->template gradient_tensors<NodeBase<Op>::num_weights>(source));
  }
  void replay(Stream& stream, ParamSource& source, bool results) override {
    this->replay_into(stream, source, results, input_, weight_);
  }
  std::vector<TapeNode::SavedRef> saved() override {
    std::vector<TapeNode::SavedRef> list;
    for (Tensor* t : tensors_of(input_)) list.push_back({t, true, false});
    for (Tensor* t : tensors_of(weight_)) list.push_back({t, false, true});
    for (Tensor* t : tensors_of(owed_)) list.push_back({t, false, true});
    return list;
  }

 private:
  typename Op::InputSaved input_;
  typename Op::WeightSaved weight_;
  typename Op::Owed owed_;
};

}  // namespace shoestring
