#include "parallel/model_stages.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/located_source.h"

namespace shoestring {

std::vector<int64_t> even_split(const ModelConfig& model, int stages) {
  if (stages < 1 || stages > model.layers) {
    fail_usage(cat("a model of ", model.layers, " layers cannot be split into ", stages,
                   " pipeline stages: each needs a layer"));
  }
  std::vector<int64_t> blocks(static_cast<size_t>(stages), model.layers / stages);
  for (int64_t s = 0; s < model.layers % stages; ++s) ++blocks[static_cast<size_t>(s)];
  return blocks;
}

std::vector<int> stages_of(const Placement& where, int rank) {
  std::vector<int> stages;
  for (int chunk = 0; chunk < where.chunks; ++chunk) {
    const int stage = where.stage_of(rank, chunk);
    if (std::find(stages.begin(), stages.end(), stage) == stages.end()) stages.push_back(stage);
  }
  return stages;
}

std::vector<ParamInfo> parameters_of(const ModelConfig& model, const std::vector<Chunk>& chunks,
                                     const std::vector<int>& stages) {
  std::vector<ParamInfo> all;
  std::set<std::string> listed;
  for (const int stage : stages) {
    for (ParamInfo& p : parameters_of(model, chunks.at(static_cast<size_t>(stage)))) {
      if (listed.insert(p.name).second) all.push_back(std::move(p));
    }
  }
  return all;
}

ModelStages::ModelStages(const StagePlan& plan, ParamStore& store, ParamSource& source,
                         Stream& compute, ModelStagesOptions options)
    : config_(plan.model),
      stages_(plan.where.stages()),
      row_ranks_(plan.row_ranks),
      store_(store),
      source_(source),
      compute_(compute),
      options_(std::move(options)) {
  check(static_cast<int>(plan.chunks.size()) == stages_, "a chunk for every stage");
  for (const int stage : stages_of(plan.where, plan.rank)) {
    held_.push_back(
        {.stage = stage,
         .segments = segments_of(plan.model, {plan.chunks[static_cast<size_t>(stage)]},
                                 options_.predictions)[0],
         .model = std::make_unique<Transformer>(
             plan.model, store, plan.chunks[static_cast<size_t>(stage)], plan.boundaries),
         .runs = std::vector<Run>(static_cast<size_t>(plan.where.micros))});
  }
}

// Tells of an instruction while it lives; of one that fails its end is not told.
class ModelStages::Running {
 public:
  Running(const ModelStagesOptions& options, Do what, int stage, int micro)
      : options_(options),
        instruction_{.what = what,
                     .stage = static_cast<int16_t>(stage),
                     .micro = static_cast<int16_t>(micro)} {
    if (options_.begins) options_.begins(instruction_);
  }
  void end() const {
    if (options_.ends) options_.ends(instruction_);
  }

 private:
  const ModelStagesOptions& options_;
  Instruction instruction_;
};

// Tells of each part of a pass while the pass has the right to compute: of parts that travel until
// they do.
class ModelStages::ToldGate : public PartGate {
 public:
  ToldGate(PartGate& gate, const ModelStagesOptions& options, int stage, int micro)
      : gate_(gate), options_(options), stage_(stage), micro_(micro) {}

  Stream& stream() override { return gate_.stream(); }
  void enter(Do what, int part) override {
    end();
    gate_.enter(what, part);
    now_ = Instruction{.what = what,
                       .stage = static_cast<int16_t>(stage_),
                       .micro = static_cast<int16_t>(micro_),
                       .part = static_cast<int16_t>(part)};
    if (options_.begins) options_.begins(*now_);
  }
  void travel() override {
    end();
    gate_.travel();
  }
  void leave() override { gate_.leave(); }
  void give(Tensor result) override { gate_.give(std::move(result)); }
  void end() {
    if (now_ && options_.ends) options_.ends(*now_);
    now_.reset();
  }

 private:
  PartGate& gate_;
  const ModelStagesOptions& options_;
  int stage_, micro_;
  std::optional<Instruction> now_;
};

ModelStages::Held& ModelStages::held(int stage) {
  for (Held& h : held_) {
    if (h.stage == stage) return h;
  }
  fail(cat("stage ", stage, " is not on this rank"));
}

void ModelStages::begin(std::vector<BatchTensors> micros, double loss_scale,
                        std::vector<double> shares) {
  check(micros.size() == held_[0].runs.size() && shares.size() == micros.size(),
        "the schedule is for another number of micro-batches");
  micros_ = std::move(micros);
  loss_scale_ = loss_scale;
  shares_ = std::move(shares);
  results_.assign(micros_.size(), {});
  for (Held& h : held_) h.runs = std::vector<Run>(micros_.size());
}

StageWork::Boundary ModelStages::boundary(int, int micro) {
  const BatchTensors& batch = micros_.at(static_cast<size_t>(micro));
  return {.shape = {batch.sequences * batch.length / row_ranks_, config_.hidden},
          .dtype = store_.compute()};
}

// `gate`: of a forward pass in parts. The gate's calls come first, so that what is offloaded is
// chosen, and copies are started, with the right to compute.
void ModelStages::make_tape(Held& h, int micro, Stream& stream, PartGate* gate) {
  const int stage = h.stage;
  Run& run = h.runs.at(static_cast<size_t>(micro));
  check(run.tape == nullptr, "a micro-batch's forward pass runs twice");
  ParamSource* source = &source_;
  if (options_.sharding != nullptr) {
    run.source = std::make_unique<LocatedSource>(options_.sharding->source(stage, micro));
    source = run.source.get();
  }
  if (options_.host != nullptr && !is_last(stage)) {
    run.offload = std::make_unique<ActivationOffload>(*source, *options_.host, *options_.copies);
    source = run.offload.get();
  }
  if (gate != nullptr) {
    run.parted = std::make_unique<PartedSource>(*source, h.segments);
    run.parted->set_gate(gate);
    source = run.parted.get();
  }
  run.tape = std::make_unique<Tape>(stream, *source, Tape::Mode::training);
  if (run.offload) run.offload->attach(*run.tape);
}

Tensor ModelStages::forward(int stage, int micro, const Tensor& input) {
  const Running running(options_, Do::F, stage, micro);
  const auto m = static_cast<size_t>(micro);
  Held& h = held(stage);
  make_tape(h, micro, compute_, nullptr);
  Tensor y = run_forward(h, m, input);
  running.end();
  return y;
}

void ModelStages::forward_parts(int stage, int micro, const Tensor& input, PartGate& gate) {
  const auto m = static_cast<size_t>(micro);
  Held& h = held(stage);
  ToldGate told(gate, options_, stage, micro);
  make_tape(h, micro, gate.stream(), &told);
  gate.give(run_forward(h, m, input));
  told.end();
  h.runs[m].parted->set_gate(nullptr);
}

Tensor ModelStages::run_forward(Held& h, size_t m, const Tensor& input) {
  Run& run = h.runs[m];
  const int stage = h.stage;
  if (options_.forward_begins) options_.forward_begins(*run.tape, stage, static_cast<int>(m));
  LayerContext context{.tape = *run.tape,
                       .batch = micros_.at(m),
                       .attention = options_.attention,
                       .tokens = options_.tokens,
                       .loads = options_.loads,
                       .share = shares_[m],
                       .recompute = options_.recompute,
                       .fp8 = options_.fp8,
                       .exact = options_.exact};
  if (stage > 0) run.input = run.tape->leaf(input, true);
  Residual x = run_blocks(h, context, run.input);
  if (is_last(stage)) {
    results_[m].main =
        h.model->loss(context, x,
                      {.loss_scale = loss_scale_,
                       .z_loss = options_.z_loss,
                       .exact = options_.exact,
                       .predictions = options_.predictions ? &results_[m].predictions : nullptr});
  } else {
    // The next stage's norm would add the last contribution while it reads: one value travels.
    run.output = run_sum(context, {.delta_multiplier = config_.residual_multiplier}, x);
  }
  if (options_.forward_done) options_.forward_done(*run.tape, stage, static_cast<int>(m));
  x = {};
  if (run.offload) run.offload->offload();
  return run.output ? run.output.tensor() : Tensor();
}

// `input` is empty at the first stage.
Residual ModelStages::run_blocks(const Held& h, LayerContext& context, const Value& input) const {
  Residual x = input ? Residual{input, Value()} : h.model->embed(context);
  return h.model->run_blocks(context, std::move(x));
}

Tensor ModelStages::evaluate(int stage, const BatchTensors& batch, const Tensor& input,
                             StageResult& result) {
  const Held& h = held(stage);
  std::unique_ptr<ParamSource> gathered;
  if (options_.sharding != nullptr && options_.sharding->gathers_weights()) {
    gathered = options_.sharding->source_of_evaluation(stage);
  }
  LocatedSource source(gathered ? *gathered : source_);
  Tape tape(compute_, source, Tape::Mode::inference);
  LayerContext context{.tape = tape,
                       .batch = batch,
                       .attention = options_.attention,
                       .tokens = options_.tokens,
                       .fp8 = options_.fp8};
  const Residual x = run_blocks(h, context, stage > 0 ? tape.leaf(input, false) : Value());
  if (is_last(stage)) {
    result.main = h.model->loss(context, x, {});
    return {};
  }
  return run_sum(context, {.delta_multiplier = config_.residual_multiplier}, x).tensor();
}

ModelStages::Run& ModelStages::seeded(int stage, int micro, const Tensor& gradient) {
  Run& run = held(stage).runs.at(static_cast<size_t>(micro));
  check(run.tape != nullptr, "a backward pass without its forward pass");
  if (!is_last(stage)) run.tape->seed(run.output, gradient);
  run.output = {};
  return run;
}

Tensor ModelStages::backward_input(int stage, int micro, const Tensor& gradient) {
  const Running running(options_, Do::I, stage, micro);
  Run& run = seeded(stage, micro, gradient);
  run.tape->move_to(compute_);
  run.tape->backward_input();
  Tensor dx;
  if (stage > 0) dx = run.tape->take_gradient(std::exchange(run.input, {}));
  running.end();
  return dx;
}

void ModelStages::backward_weight(int stage, int micro) {
  const Running running(options_, Do::W, stage, micro);
  Run& run = held(stage).runs.at(static_cast<size_t>(micro));
  run.tape->backward_weight();
  run = {};
  running.end();
}

Tensor ModelStages::backward(int stage, int micro, const Tensor& gradient) {
  const Running running(options_, Do::B, stage, micro);
  Run& run = seeded(stage, micro, gradient);
  run.tape->move_to(compute_);
  run.tape->backward();
  Tensor dx;
  if (stage > 0) dx = run.tape->take_gradient(std::exchange(run.input, {}));
  run = {};
  running.end();
  return dx;
}

// Ops outside of segments run before the part below them; what a part that travels reads of dropped
// regions is made before it leaves.
void ModelStages::backward_parts(int stage, int micro, const Tensor& gradient, PartGate& own) {
  ToldGate gate(own, options_, stage, micro);
  const StageSegments& segments = held(stage).segments;
  Run& run = held(stage).runs.at(static_cast<size_t>(micro));
  for (int k = static_cast<int>(segments.size()); k-- > 0;) {
    gate.enter(Do::I, k);
    if (k + 1 == static_cast<int>(segments.size())) {
      seeded(stage, micro, gradient).tape->move_to(gate.stream());
    }
    Tape& tape = *run.tape;
    while (tape.next_input_segment() == -1) tape.backward_input_segment();
    const bool away = travels(segments[static_cast<size_t>(k)]);
    if (away) {
      tape.refill_input_segment();
      gate.travel();
    }
    while (tape.next_input_segment() == k) tape.backward_input_segment();
    if (k == 0) {
      tape.backward_input();
      gate.give(stage > 0 ? tape.take_gradient(std::exchange(run.input, {})) : Tensor());
    }
    if (away) {
      gate.leave();
    } else {
      gate.enter(Do::W, k);
      tape.backward_weight();
    }
  }
  run = {};
  gate.end();
}

// A forward pass in parts may have a rest to run: then it is not the turn of its activations yet.
void ModelStages::expect_gradient(int stage, int micro) {
  Run& run = held(stage).runs.at(static_cast<size_t>(micro));
  if (run.offload && run.output) run.offload->expect_backward();
}

void ModelStages::gather_weights(int stage, int micro) {
  check(options_.sharding != nullptr, "a program that gathers weights of stages that have them");
  options_.sharding->gather(stage, micro);
}

void ModelStages::release_weights(int stage, int micro) {
  check(options_.sharding != nullptr, "a program that releases weights that were not gathered");
  options_.sharding->release(stage, micro);
}

void ModelStages::reduce_gradients(int stage, int micro) {
  check(options_.sharding != nullptr, "a program that reduces gradients of one rank");
  options_.sharding->reduce(stage, micro);
}

}  // namespace shoestring
