#pragma once
// Forward and backward of one step under a mesh: the schedule's instructions over this rank's
// stages, with all seams filled, and the sums of gradients behind them.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "parallel/model_part.h"
#include "parallel/model_stages.h"
#include "parallel/pipeline_engine.h"
#include "parallel/step_gradients.h"

namespace shoestring {

// This rank's micro-batches, those of its data rank: whole rows, ascending by global number.
struct StepInput {
  std::span<const MicroBatch> micros = {};
  int64_t global_micro_batches = 0;
  int64_t global_valid_labels = 0;
  // Asked between micro-batches, by all ranks alike, whether to abandon the step; a pipeline, where
  // all are under way at once, never asks.
  std::function<bool()> stop = {};
  // Passes do not run in parts in this step, though the part's config has overlap: for those who
  // look at one pass at a time. The bits are the same.
  bool whole_passes = false;
};

class MeshStep {
 public:
  // What is told of micro-batches, by their place in StepInput::micros. A rank with several stages
  // is told of each.
  struct Hooks {
    std::function<void(Tape& tape, int stage, size_t micro)> forward_begins = {};
    // `result`: of the last stage, else null.
    std::function<void(Tape& tape, int stage, size_t micro, const StageResult* result)>
        forward_done = {};
    // In front of every instruction, and behind it.
    std::function<void(const Instruction&instruction, size_t micro)> begins = {}, ends = {};
    // Behind every instruction of the rank's program, transfers among them; micro-batches by number
    // of the data rank's step, also where a step is several rounds of the schedule.
    InstructionListener ran = {};
    std::function<void()> no_micro_batch = {};  // this rank has none where others have one
  };

  // All outlive this. `options`: what stages are run with; its seams and hooks are filled here.
  MeshStep(ModelPart& part, ParamStore& store, StepGradients& gradients, Stream& compute,
           const ModelStagesOptions& options);

  // All ranks call. False: abandoned, and the gradients mean nothing.
  bool run(const StepInput& input, const Hooks& hooks);
  // By place in StepInput::micros; empty ones where this rank does not hold the last stage. Under
  // tensor parallelism all ranks have the same, under context parallelism each that of its tokens.
  const std::vector<StageResult>& results() const { return results_; }
  bool holds_loss() const;

  // Forward alone, of one micro-batch of whole rows: the result on the ranks that give it.
  StageResult evaluate(const MicroBatch& micro);
  bool gives_evaluation() const;

  void set_rope(const RopeConfig& rope);
  const RopeConfig& rope() const { return rope_ ? *rope_ : part_.model().rope; }
  void set_mtp_weight(double weight);
  void reserve_positions(int64_t positions);

 private:
  void prepare(int micros, bool whole_passes);
  void settle();
  void run_round(const StepInput& input, size_t first, size_t count, const Hooks& hooks);
  size_t place_of(int micro, size_t first) const;
  InstructionListener listener(const Hooks& hooks) const;

  ModelPart& part_;
  ParamStore& store_;
  StoreSource source_;  // of evaluation
  StepGradients& gradients_;
  Stream& compute_;
  ModelStagesOptions options_;
  Schedule schedule_;
  bool whole_passes_ = false;  // of it
  std::unique_ptr<ModelStages> stages_;
  std::unique_ptr<PipelineEngine> engine_;
  std::vector<StageResult> results_;
  // Of every ModelStages that is made.
  std::optional<RopeConfig> rope_;
  std::optional<double> mtp_weight_;
  int64_t positions_ = 0;
  // Of the round in progress.
  size_t round_first_ = 0;
  std::vector<int64_t> sequences_;
  const Hooks* hooks_ = nullptr;
};

}  // namespace shoestring
