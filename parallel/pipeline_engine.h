#pragma once
// Runs one rank's program of a pipeline schedule: a short case an instruction. What stages compute
// is the caller's (StageWork): a model's chunks, or timed waits in a rehearsal.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "parallel/instruction.h"
#include "parallel/lane.h"
#include "parallel/pipeline_links.h"

namespace shoestring {

class StageWork {
 public:
  virtual ~StageWork() = default;
  // Shape and type of what enters a stage that is not the first, of a micro-batch.
  struct Boundary {
    Shape shape;
    Dtype dtype = Dtype::f32;
  };
  virtual Boundary boundary(int stage, int micro) = 0;
  // F. `input` is empty for the first stage; gives what leaves the stage, nothing for the last.
  virtual Tensor forward(int stage, int micro, const Tensor& input) = 0;
  // I. `gradient` is empty for the last stage; gives that of the input, nothing for the first.
  virtual Tensor backward_input(int stage, int micro, const Tensor& gradient) = 0;
  // W.
  virtual void backward_weight(int stage, int micro) = 0;
  // B.
  virtual Tensor backward(int stage, int micro, const Tensor& gradient) {
    Tensor dx = backward_input(stage, micro, gradient);
    backward_weight(stage, micro);
    return dx;
  }
  // F and B part by part, on a lane's thread: forward() and backward() with calls of the gate at
  // the borders of the stage's segments, and what they return given to it. Bit-equal to them.
  virtual void forward_parts(int stage, int micro, const Tensor& input, PartGate& gate);
  virtual void backward_parts(int stage, int micro, const Tensor& gradient, PartGate& gate);
  // The gradient of what leaves the stage has been asked for: its backward pass is near.
  virtual void expect_gradient(int, int) {}
  // G, R and S. A stage that two ranks hold (DualPipe) is the copy of this micro-batch.
  virtual void gather_weights(int, int) {}
  virtual void release_weights(int, int) {}
  virtual void reduce_gradients(int, int) {}
};

// Since the last reset.
struct PipelineStats {
  int64_t instructions = 0;
  double compute_seconds = 0;  // in the work
  double wait_seconds = 0;     // for values of other ranks
  double travel_seconds = 0;   // for rows of parts that travel, while nothing else could run
  double step_seconds = 0;     // of the instructions
  double total_seconds = 0;    // with the sends that were still under way
  int64_t bytes_sent = 0;
};

// When an instruction ran; what it waited for before is apart (comm/whereabouts.h, WaitListener).
struct InstructionSpan {
  Instruction what;
  std::chrono::steady_clock::time_point begin, end;
};
using InstructionListener = std::function<void(const InstructionSpan&)>;

// What an instruction that computes waits for: "input of 1F0", "gradient of 0I3".
std::string awaited_by(const Instruction& instruction);

class PipelineEngine {
 public:
  // `schedule` can run and has transfers (parallel/passes.h); rank r of `pipeline` runs
  // schedule.ranks[r]. All ranks construct at once. All arguments outlive the engine.
  PipelineEngine(Communicator& pipeline, Stream& compute, const Schedule& schedule);

  // Where a program has parts: the stream of backward passes in parts, whose communicators must be
  // others than those of forward passes (parallel/comm/by_stream.h). Lives as long as the engine.
  const Stream* backward_stream() const { return lanes_ ? &lanes_->backward.compute() : nullptr; }

  // One step. An error tells the other ranks, by name of rank and instruction, and is thrown on.
  void run(StageWork& work);

  // Told of each instruction that ran, on the thread of run(). Empty: nobody is.
  void listen(InstructionListener listener) { listener_ = std::move(listener); }

  const PipelineStats& stats() const { return stats_; }
  void reset_stats() { stats_ = {}; }

 private:
  // A value between two instructions.
  struct Slot {
    Tensor value;
    Event ready;
    bool there = false;
  };
  enum class SlotKind : uint8_t { activation, gradient, activation_out, gradient_out };
  static constexpr size_t slot_kinds = 4;

  // Passes in parts, one of each direction at a time.
  struct Lanes {
    explicit Lanes(Device& device) : forward(device, "forward"), backward(device, "backward") {}
    Lane forward, backward;
    Instruction forward_pass, backward_pass;
  };

  void run_one(const Instruction& i, StageWork& work);
  void step(const Instruction& i, StageWork& work);
  void step_part(const Instruction& i, StageWork& work);
  void start_pass(const Instruction& i, StageWork& work);
  void settle(bool forward);
  void collect(bool forward);
  void give_up(std::string_view reason) noexcept;
  void put(SlotKind kind, const Instruction& i, int stage, Tensor value, const Event& ready = {});
  Tensor take(SlotKind kind, const Instruction& i);
  void hand_on(const Instruction& i, Tensor value, bool up);
  template <class F>
  auto timed(F&& work);
  Slot& slot(SlotKind kind, int stage, int micro);
  std::string text_of(size_t number) const;

  Communicator& pipeline_;
  Stream& compute_;
  const Schedule& schedule_;
  const Program& program_;
  std::vector<Slot> slots_;
  PipelineStats stats_;
  PipelineLinks links_;
  InstructionListener listener_;
  std::chrono::steady_clock::time_point began_;  // the instruction that runs, behind its waits
  std::unique_ptr<Lanes> lanes_;                 // null: no parts
};

}  // namespace shoestring
