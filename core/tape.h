#pragma once
// The tape of one (chunk, micro-batch): records ops while they run forward, then walks them
// backwards. The backward pass is declared in two phases, so that schedules may part them:
//
//   backward_input()   I: gradients of values; every matrix's weight gradient is owed, not made
//   backward_weight()  W: makes what is owed, in the order in which it became owed
//   backward()         B: the same work, each weight gradient right after its input gradient
//
// Weight gradients are added to the ParamSource's f32 gradients in the same order per parameter in
// both forms, so the forms agree bit for bit. After I the tape holds only what W reads.
// (Input/weight split: Qi et al. 2024, "Zero bubble pipeline parallelism", section 2.)

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/op.h"
#include "core/seams.h"
#include "core/statistic.h"
#include "core/tape_node.h"
#include "core/tape_value.h"

namespace shoestring {

// Told of every op that runs: for traces and profiles.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void begin(std::string_view op, Phase phase) = 0;
  virtual void end() = 0;
};

class Tape {
 public:
  enum class Mode { inference, training };  // inference records nothing
  Tape(Stream& stream, ParamSource& source, Mode mode);

  Stream& stream() { return *stream_; }
  // What follows runs on another stream: that of the thread that walks a phase.
  void move_to(Stream& stream) { stream_ = &stream; }
  ParamSource& source() { return *source_; }
  bool recording() const { return mode_ == Mode::training; }
  void observe(OpObserver* observer) { observer_ = observer; }  // null: nobody

  // Reports its own lifetime to the observer.
  class Watch {
   public:
    Watch(const Tape& tape, std::string_view op, Phase phase) : observer_(tape.observer_) {
      if (observer_) observer_->begin(op, phase);
    }
    ~Watch() {
      if (observer_) observer_->end();
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    OpObserver* observer_;
  };

  // A leaf: token ids (no gradient) or what another chunk sent (gradient wanted).
  Value leaf(Tensor tensor, bool wants_gradient);
  // The gradient that reached a leaf; empty when none did. Moves it out.
  Tensor take_gradient(const Value& leaf);

  // --- segments: the grain at which schedules interleave and sources gather ---
  void begin_segment(std::string name);
  void end_segment();
  int num_segments() const { return static_cast<int>(segments_.size()); }
  const std::string& segment_name(int segment) const;
  bool in_segment() const { return open_segment_ >= 0; }

  // --- recompute: ops recorded between begin and end are replayed in I when their outputs were
  // dropped. drop() gives back everything the region made except the values to keep. ---
  int begin_region();
  void end_region(int region);
  void drop_region(int region, const std::vector<Value>& keep);

  // --- backward ---
  void seed(const Value& output, Tensor gradient);  // dy of a chunk's output, before I
  void backward_input();
  bool backward_input_segment();  // the last segment still to do; false when none is left
  // That segment; -1: ops outside of segments; empty when none is left.
  std::optional<int> next_input_segment() const;
  // Makes again, now, what regions dropped of what that segment reads.
  void refill_input_segment();
  void backward_weight();
  void backward();

  // Adds an op that made its input's gradient already in the forward pass (the head with its loss).
  void record_gradient(std::string_view name, const Value& x, Tensor dx);
  // Counts a use of a parameter whose gradient was made outside of apply (ditto).
  void count_use(const Param& p);
  void use_done(const Param& p);

  // --- step statistics: named outputs of the tape, folded over micro-batches and ranks by the step
  // and never by a layer. They cost a pass over what they tell of: layers make them on request. ---
  void want_statistics() { wants_statistics_ = true; }
  bool wants_statistics() const { return wants_statistics_; }
  void add_statistic(const std::string& name, const Statistic& s) { statistics_[name].add(s); }
  const std::map<std::string, Statistic>& statistics() const { return statistics_; }
  // Small tensors of a layer that the step reads after the forward pass (a router's figures). They
  // are not of kind activations, so that no recompute region drops them.
  void tell(const std::string& name, const Tensor& figures) { told_[name] = figures; }
  const std::map<std::string, Tensor>& told() const { return told_; }

  // What the two phases still hold, in bytes.
  const Arena& input_arena() const { return input_arena_; }
  const Arena& weight_arena() const { return weight_arena_; }
  int64_t owed() const { return static_cast<int64_t>(pending_.size()); }
  // Saved activations that nothing but this tape refers to any more: nobody reads them before the
  // backward pass comes to `segment`, the last one that saved them, so that they may be elsewhere
  // until then. What recompute drops, or may still drop, is not among them.
  struct Resting {
    BlockPtr block;
    int segment = 0;
  };
  std::vector<Resting> resting_blocks() const;

  // Called by apply() alone: returns the op's outputs as values.
  std::vector<Value> record(std::unique_ptr<TapeNode> node, std::span<const Value> inputs,
                            std::span<const Tensor> outputs);

 private:
  struct Region {
    int begin = 0, end = 0;  // nodes
    bool dropped = false;
  };
  struct Segment {
    std::string name;
    int begin = 0, end = 0;
  };
  void walk(int from_node, int to_node, bool weights_too);
  void step_back(int node, bool weights_too);
  void settle(std::unique_ptr<TapeNode> node);
  void refill(TapeNode& node);
  void replay(int region);
  void add_gradient(int id, Tensor gradient);
  void enter_segment_of(int node);
  int left() const { return walked_to_ < 0 ? static_cast<int>(nodes_.size()) : walked_to_; }

  Stream* stream_;
  ParamSource* source_;
  Mode mode_;
  OpObserver* observer_ = nullptr;
  std::vector<std::unique_ptr<TapeNode>> nodes_;
  std::vector<std::unique_ptr<TapeNode>> pending_;  // owed weight gradients, oldest first
  std::vector<Tensor> gradients_;                   // by value id
  std::vector<bool> wants_;                         // by value id
  std::vector<Segment> segments_;
  std::vector<Region> regions_;
  std::map<const Block*, int> region_of_block_;
  std::map<int, int> uses_;  // parameter index -> uses not done
  std::map<std::string, Statistic> statistics_;
  std::map<std::string, Tensor> told_;
  bool wants_statistics_ = false;
  Arena input_arena_{"input phase"}, weight_arena_{"weight phase"};
  int open_region_ = -1, open_segment_ = -1, backward_segment_ = -1;
  int walked_to_ = -1;  // nodes at and above are done; -1: backward has not begun
};

// The only way to run an op. Inputs may be empty values where the op allows it; weights are listed
// in the op's order. One output is returned as a Value, several as an array.
template <class Op>
auto apply(Tape& tape, const typename Op::Attributes& attributes,
           const std::array<Value, static_cast<size_t>(Op::num_inputs)>& inputs,
           const std::vector<const Param*>& weights = {}) {
  auto node = std::make_unique<NodeOf<Op>>(attributes, weights);
  Tensors<Op::num_inputs> x;
  for (size_t i = 0; i < x.size(); ++i) {
    if (inputs[i]) x[i] = inputs[i].tensor();
  }
  Tensors<Op::num_outputs> y;
  {
    const Tape::Watch watch(tape, Op::name, Phase::forward);
    y = node->run_forward(tape.stream(), tape.source(), x);
  }
  std::vector<Value> values = tape.record(std::move(node), inputs, y);
  if constexpr (Op::num_outputs == 1) {
    return std::move(values[0]);
  } else {
    std::array<Value, static_cast<size_t>(Op::num_outputs)> result;
    std::move(values.begin(), values.end(), result.begin());
    return result;
  }
}

}  // namespace shoestring
