#pragma once
// One recorded op: the type-erased shell that the tape walks over (TapeNode) and its typed filling
// (NodeOf<Op>), chosen by which of the three op concepts the op satisfies.

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/op.h"
#include "core/seams.h"

namespace shoestring {

class TapeNode {
 public:
  virtual ~TapeNode() = default;
  virtual std::string_view name() const = 0;
  // dx of every input from dy of every output; eager ops add their weight gradients here.
  virtual std::vector<Tensor> grad_input(Stream& stream, ParamSource& source,
                                         std::span<const Tensor> dy) = 0;
  // Weighted ops: keeps dy for the weight phase and lets go of what only the input phase read.
  virtual bool owes_weight() const { return false; }
  virtual void owe(std::span<const Tensor>) {}
  virtual void grad_weight(Stream&, ParamSource&) {}
  // Runs forward again from the kept inputs and hands the memory to the hollow blocks of the
  // first run. Without `results` nobody reads its outputs: an op that has `refill` makes again what
  // it saves alone.
  virtual void replay(Stream& stream, ParamSource& source, bool results) = 0;
  // Every saved tensor, with whether each phase reads it.
  struct SavedRef {
    Tensor* tensor;
    bool input_phase, weight_phase;
  };
  virtual std::vector<SavedRef> saved() = 0;

  std::vector<int> input_ids, output_ids;  // -1: no gradient flows there
  std::vector<const Param*> weights;
  int region = -1, segment = -1;
  // Kept only inside a recompute region: what replay reads, and what it fills.
  std::vector<Tensor> kept_inputs, kept_outputs;
};

// Gives the fresh memory of `from` to `to` when `to` is hollow.
inline void refill_block(const Tensor& to, const Tensor& from) {
  if (to && from && to.block()->hollow() && !from.block()->hollow()) {
    to.block()->adopt(*from.block());
  }
}

template <class Saved>
std::vector<Tensor*> tensors_of(Saved& saved) {
  std::vector<Tensor*> list;
  saved.each([&](Tensor& t) { list.push_back(&t); });
  return list;
}

template <class Saved>
void refill_saved(Saved& to, Saved& from) {
  std::vector<Tensor*> old = tensors_of(to), fresh = tensors_of(from);
  for (size_t i = 0; i < old.size(); ++i) refill_block(*old[i], *fresh[i]);
}

// What the kinds share.
template <class Op>
class NodeBase : public TapeNode {
 public:
  NodeBase(const typename Op::Attributes& attributes, const std::vector<const Param*>& params)
      : attributes_(attributes) {
    weights = params;
  }
  std::string_view name() const override { return Op::name; }

 protected:
  template <size_t n>
  static std::array<Tensor, n> array_of(std::span<const Tensor> list) {
    std::array<Tensor, n> result;
    std::copy_n(list.begin(), n, result.begin());
    return result;
  }
  template <size_t n>
  std::array<Tensor, n> weight_tensors(ParamSource& source) const {
    std::array<Tensor, n> w;
    for (size_t i = 0; i < n; ++i) w[i] = source.weight(*weights[i]);
    return w;
  }
  template <size_t n>
  std::array<Tensor, n> gradient_tensors(ParamSource& source) const {
    std::array<Tensor, n> dw;
    for (size_t i = 0; i < n; ++i) dw[i] = source.gradient(*weights[i]);
    return dw;
  }
  // The op's own functions, with weights and their gradients where the op has any.
  static constexpr size_t num_weights = [] {
    if constexpr (PlainOp<Op>) {
      return size_t{0};
    } else {
      return static_cast<size_t>(Op::num_weights);
    }
  }();
  template <class... Saved>
  Tensors<Op::num_outputs> forward(Stream& stream, ParamSource& source,
                                   const Tensors<Op::num_inputs>& x, Saved&... saved) {
    if constexpr (PlainOp<Op>) {
      return Op::forward(stream, attributes_, x, saved...);
    } else {
      return Op::forward(stream, attributes_, x, weight_tensors<num_weights>(source), saved...);
    }
  }
  template <class Saved>
  std::vector<Tensor> gradient(Stream& stream, ParamSource& source, const Saved& saved,
                               std::span<const Tensor> list) {
    const auto dy = array_of<Op::num_outputs>(list);
    Tensors<Op::num_inputs> dx;
    if constexpr (PlainOp<Op>) {
      dx = Op::grad_input(stream, attributes_, saved, dy);
    } else if constexpr (EagerOp<Op>) {
      dx = Op::grad_input(stream, attributes_, saved, weight_tensors<num_weights>(source), dy,
                          gradient_tensors<num_weights>(source));
    } else {
      dx = Op::grad_input(stream, attributes_, saved, weight_tensors<num_weights>(source), dy);
    }
    return {dx.begin(), dx.end()};
  }
  template <class... Saved>
  void replay_into(Stream& stream, ParamSource& source, bool results, Saved&... saved) {
    const auto x = array_of<Op::num_inputs>(kept_inputs);
    auto again = [&](Saved... fresh) {
      if constexpr (requires { Op::refill(stream, attributes_, x, fresh...); }) {
        if (!results && Op::refill(stream, attributes_, x, fresh...)) {
          (refill_saved(saved, fresh), ...);
          return;
        }
      }
      const auto y = forward(stream, source, x, fresh...);
      for (size_t i = 0; i < y.size(); ++i) refill_block(kept_outputs[i], y[i]);
      (refill_saved(saved, fresh), ...);
    };
    again(Saved()...);
  }
  typename Op::Attributes attributes_;
};

template <class Op>
class NodeOf;

// Everything happens in the input phase: ops without weights, and those with tiny ones.
template <class Op>
requires(PlainOp<Op> || EagerOp<Op>) class NodeOf<Op> : public NodeBase<Op> {
 public:
  using NodeBase<Op>::NodeBase;
  Tensors<Op::num_outputs> run_forward(Stream& stream, ParamSource& source,
                                       const Tensors<Op::num_inputs>& x) {
    return this->forward(stream, source, x, saved_);
  }
  std::vector<Tensor> grad_input(Stream& stream, ParamSource& source,
                                 std::span<const Tensor> dy) override {
    return this->gradient(stream, source, saved_, dy);
  }
  void replay(Stream& stream, ParamSource& source, bool results) override {
    this->replay_into(stream, source, results, saved_);
  }
  std::vector<TapeNode::SavedRef> saved() override {
    std::vector<TapeNode::SavedRef> list;
    for (Tensor* t : tensors_of(saved_)) list.push_back({t, true, false});
    return list;
  }

 private:
  typename Op::Saved saved_;
};

// Matrices: the weight gradient is owed.
template <class Op>
requires WeightedOp<Op>
class NodeOf<Op> : public NodeBase<Op> {
 public:
  using NodeBase<Op>::NodeBase;
  Tensors<Op::num_outputs> run_forward(Stream& stream, ParamSource& source,
                                       const Tensors<Op::num_inputs>& x) {
    return this->forward(stream, source, x, input_, weight_);
  }
  std::vector<Tensor> grad_input(Stream& stream, ParamSource& source,
                                 std::span<const Tensor> dy) override {
    return this->gradient(stream, source, input_, dy);
  }
  bool owes_weight() const override { return true; }
  void owe(std::span<const Tensor> dy) override {
    dy_.assign(dy.begin(), dy.end());
    input_ = {};
    this->kept_inputs.clear();
    this->kept_outputs.clear();
  }
  void grad_weight(Stream& stream, ParamSource& source) override {
    Op::grad_weight(stream, this->attributes_, weight_,
                    this->template array_of<Op::num_outputs>(dy_),
                    this->template gradient_tensors<NodeBase<Op>::num_weights>(source));
  }
  void replay(Stream& stream, ParamSource& source, bool results) override {
    this->replay_into(stream, source, results, input_, weight_);
  }
  std::vector<TapeNode::SavedRef> saved() override {
    std::vector<TapeNode::SavedRef> list;
    for (Tensor* t : tensors_of(input_)) list.push_back({t, true, false});
    for (Tensor* t : tensors_of(weight_)) list.push_back({t, false, true});
    for (Tensor& t : dy_) list.push_back({&t, false, true});
    return list;
  }

 private:
  typename Op::InputSaved input_;
  typename Op::WeightSaved weight_;
  std::vector<Tensor> dy_;
};

}  // namespace shoestring
