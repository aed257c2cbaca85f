#include "parallel/mesh_step.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "parallel/passes.h"
#include "parallel/segment_passes.h"
#include "parallel/stage_segments.h"

namespace shoestring {
namespace {

// How long links take for rows is not known here: all parts count alike, which for blocks of
// experts gives the published order.
StepTimes equal_parts() {
  StepTimes times;
  for (size_t k = 0; k < segment_kinds; ++k) {
    times.segments[k] = {1, 1, travels(static_cast<SegmentKind>(k)) ? 0.0 : 1.0};
  }
  return times;
}

}  // namespace

MeshStep::MeshStep(ModelPart& part, ParamStore& store, StepGradients& gradients, Stream& compute,
                   const ModelStagesOptions& options)
    : part_(part),
      store_(store),
      source_(store),
      gradients_(gradients),
      compute_(compute),
      options_(options) {
  options_.attention = part.attention();
  options_.tokens = part.experts();
  // A pipeline's order depends on the number of micro-batches, which the first step tells.
  prepare(part.where().ranks > 1 ? 0 : 1, false);
}

// Where the schedule's micro-batch stands among this rank's. With both directions they alternate:
// the first of one, the first of the other.
size_t MeshStep::place_of(int micro, size_t first) const {
  const Placement& where = schedule_.where;
  if (where.order != StageOrder::both_ways) return first + static_cast<size_t>(micro);
  const int half = where.micros / 2;
  return first + static_cast<size_t>(micro < half ? 2 * micro : 2 * (micro - half) + 1);
}

void MeshStep::prepare(int micros, bool whole_passes) {
  const bool parts = part_.config().overlap && part_.where().ranks > 1 && !whole_passes;
  if (stages_ && schedule_.where.micros == micros && whole_passes_ == !parts) return;
  whole_passes_ = !parts;
  part_.set_backward_stream(nullptr);
  engine_.reset();
  if (micros == 0) {  // stages alone, for evaluation
    schedule_.where = part_.where();
    schedule_.where.micros = 0;
  } else {
    schedule_ =
        add_sharding(add_transfers(schedule_of(part_.config(), micros)), gradients_.instructions());
    if (parts) {
      schedule_ = split_segments(std::move(schedule_), segments_of(part_.model(), part_.chunks()),
                                 equal_parts());
    }
  }
  ModelStagesOptions options = options_;
  options.sharding = &gradients_.sharding();
  options.forward_begins = [this](Tape& tape, int stage, int micro) {
    part_.begin_micro_batch(sequences_.at(place_of(micro, 0)));
    if (hooks_->forward_begins) hooks_->forward_begins(tape, stage, place_of(micro, round_first_));
  };
  options.forward_done = [this](Tape& tape, int stage, int micro) {
    if (!hooks_->forward_done) return;
    const bool last = stage + 1 == schedule_.where.stages();
    hooks_->forward_done(tape, stage, place_of(micro, round_first_),
                         last ? &stages_->results()[static_cast<size_t>(micro)] : nullptr);
  };
  options.begins = [this](const Instruction& i) {
    if (hooks_->begins) hooks_->begins(i, place_of(i.micro, round_first_));
  };
  options.ends = [this](const Instruction& i) {
    if (hooks_->ends) hooks_->ends(i, place_of(i.micro, round_first_));
  };
  const int row_ranks = part_.mesh().extent(MeshAxis::tp);
  stages_ = std::make_unique<ModelStages>(StagePlan{.model = part_.model(),
                                                    .chunks = part_.chunks(),
                                                    .where = schedule_.where,
                                                    .rank = part_.place()[MeshAxis::pp],
                                                    .boundaries = part_.boundaries(),
                                                    .row_ranks = row_ranks},
                                          store_, source_, compute_, std::move(options));
  if (micros > 0) {
    engine_ = std::make_unique<PipelineEngine>(part_.group(MeshGroup::pp), compute_, schedule_);
    part_.set_backward_stream(engine_->backward_stream());
  }
  settle();
}

void MeshStep::settle() {
  for (const int stage : part_.stages()) {
    Transformer& model = stages_->stage(stage);
    if (rope_) model.set_rope(*rope_);
    if (mtp_weight_) model.set_mtp_weight(*mtp_weight_);
    if (positions_ > 0) model.reserve_positions(positions_);
  }
}

void MeshStep::set_rope(const RopeConfig& rope) {
  rope_ = rope;
  settle();
}
void MeshStep::set_mtp_weight(double weight) {
  mtp_weight_ = weight;
  settle();
}
void MeshStep::reserve_positions(int64_t positions) {
  positions_ = positions;
  settle();
}

bool MeshStep::holds_loss() const {
  const int last = part_.where().stages() - 1;
  return part_.stages().back() == last;
}

// Of two copies of the last stage the one that the first direction ends at.
bool MeshStep::gives_evaluation() const {
  const Placement& where = part_.where();
  return where.rank_of(where.stages() - 1, 0) == part_.place()[MeshAxis::pp];
}

InstructionListener MeshStep::listener(const Hooks& hooks) const {
  if (!hooks.ran) return {};
  return [&hooks, first = static_cast<int16_t>(round_first_)](const InstructionSpan& span) {
    InstructionSpan of_step = span;
    of_step.what.micro = static_cast<int16_t>(of_step.what.micro + first);
    hooks.ran(of_step);
  };
}

// One pass of the engine over `count` micro-batches.
void MeshStep::run_round(const StepInput& input, size_t first, size_t count, const Hooks& hooks) {
  prepare(static_cast<int>(count), input.whole_passes);
  const double labels = static_cast<double>(std::max<int64_t>(input.global_valid_labels, 1));
  std::vector<BatchTensors> tensors(count);
  std::vector<double> shares(count);
  sequences_.assign(count, 0);
  hooks_ = &hooks;
  round_first_ = first;
  for (int micro = 0; micro < static_cast<int>(count); ++micro) {
    const MicroBatch& whole = input.micros[place_of(micro, first)];
    tensors[static_cast<size_t>(micro)] = to_device(compute_.device(), part_.cut(whole));
    shares[static_cast<size_t>(micro)] = static_cast<double>(whole.valid_labels) / labels;
    sequences_[place_of(micro, 0)] = whole.sequences;
  }
  stages_->begin(std::move(tensors), 1.0 / labels, std::move(shares));
  engine_->listen(listener(hooks));
  engine_->run(*stages_);
  for (int micro = 0; micro < static_cast<int>(count); ++micro) {
    results_[place_of(micro, first)] = stages_->results()[static_cast<size_t>(micro)];
  }
}

bool MeshStep::run(const StepInput& input, const Hooks& hooks) {
  const size_t count = input.micros.size();
  results_.assign(count, {});
  gradients_.begin_step(input.global_micro_batches);
  const size_t each = part_.where().ranks > 1 ? count : 1;
  size_t next = 0;
  for (int64_t round = 0; round < gradients_.rounds(); ++round) {
    if (round > 0 && input.stop && input.stop()) return false;
    if (gradients_.has_micro_batch(round)) {
      gradients_.begin_round(round);
      run_round(input, next, each, hooks);
      next += each;
      continue;
    }
    if (hooks.no_micro_batch) hooks.no_micro_batch();
    gradients_.skip_round(round);
  }
  return true;
}

// Stages pass values on one after the other; without a backward pass nothing has to be arranged.
StageResult MeshStep::evaluate(const MicroBatch& whole) {
  const MicroBatch micro = part_.cut(whole);
  const BatchTensors batch = to_device(compute_.device(), micro);
  part_.begin_micro_batch(whole.sequences);
  StageResult result;
  const Placement& where = part_.where();
  const int rank = part_.place()[MeshAxis::pp];
  Communicator& pipeline = part_.group(MeshGroup::pp);
  Tensor x;
  for (int stage = 0; stage < where.stages(); ++stage) {
    if (where.rank_of(stage, 0) != rank) {
      // Of a stage's two copies one works, with shards of the other's weights. In the order of
      // stages: what two of them read is gathered for one after the other.
      const bool copied = std::ranges::count(part_.stages(), stage) > 0;
      if (copied) gradients_.sharding().idle_in_evaluation(stage);
      continue;
    }
    if (stage > 0 && where.rank_of(stage - 1, 0) != rank) {
      const Shape shape = {part_.rows_of(batch), part_.model().hidden};
      x = Tensor(compute_.device(), shape, store_.compute());
      const Transfer in =
          Transfer::receive(where.rank_of(stage - 1, 0), {x.raw(), x.elements(), x.dtype()});
      pipeline.exchange({&in, 1}, compute_);
    }
    x = stages_->evaluate(stage, batch, x, result);
    if (stage + 1 < where.stages() && where.rank_of(stage + 1, 0) != rank) {
      const Transfer out =
          Transfer::send(where.rank_of(stage + 1, 0), {x.raw(), x.elements(), x.dtype()});
      pipeline.exchange({&out, 1}, compute_);
      compute_.synchronize();
    }
  }
  return result;
}

}  // namespace shoestring
