#include "launcher/parity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/check.h"
#include "core/text.h"
#include "launcher/mesh_layout.h"
#include "launcher/parity_traffic.h"
#include "launcher/progress.h"
#include "launcher/step.h"
#include "launcher/whole_model.h"
#include "parallel/comm/in_process.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

std::vector<double> doubles_of(const Tensor& t) {
  std::vector<double> values;
  values.reserve(static_cast<size_t>(t.elements()));
  if (t.dtype() == Dtype::f64) {
    values.assign(t.span<double>().begin(), t.span<double>().end());
  } else {
    for (const float x : t.span<float>()) values.push_back(static_cast<double>(x));
  }
  return values;
}

void add_states(const RankState& rank, ParityStep& step) {
  for (const ModelState& s : rank.store->states()) {
    std::vector<double> own = doubles_of(s.values);
    std::vector<double>& all = step.states.try_emplace(s.name, own).first->second;
    if (all != own) std::fill(all.begin(), all.end(), std::numeric_limits<double>::quiet_NaN());
  }
}

// What the ranks of a step put together.
struct StepRun {
  std::mutex mutex;
  ParityTraffic traffic;
  ParityStep step;
};

void run_rank(const RunConfig& config, Communicator& world, StepRun& run) {
  RunTrace trace({}, world.rank());
  RankState rank(config, world, 1, world.size());
  StepRunner runner(rank, trace);
  const Batch batch = rank.loader->batch(0, rank.part->data_rank(), rank.part->data_ranks());
  const StepReport report = runner.run(batch);
  run.traffic.add(rank, batch);
  {
    const std::lock_guard lock(run.mutex);
    add_memory(rank, batch, run.step.memory);
    add_states(rank, run.step);
    if (world.rank() == 0) {
      run.step.loss = report.loss;
      run.step.norm = report.gradient_norm;
    }
  }
  gather_whole(rank, rank.gradients->gradients(),
               [&](const ParamInfo& whole, const Tensor& values) {
                 run.step.gradients[whole.name] = doubles_of(values);
               });
}

double norm_of(const ParityStep& step) {
  double squares = 0;
  for (const auto& [name, g] : step.gradients) {
    for (const double x : g) squares += x * x;
  }
  return std::sqrt(squares);
}

// The oracle's micro-batches, one after the other, into the store's f64 gradients.
class Oracle {
 public:
  Oracle(const RunConfig& config, RankState& rank)
      : config_(config),
        stream_(Stream::immediate(rank.device)),
        store_(rank.device, parameters_of(rank.config.model, whole_model(rank.config.model)),
               Dtype::f64),
        source_(store_),
        model_(rank.config.model, store_, whole_model(rank.config.model)) {
    store_.initialise(static_cast<uint64_t>(config.run.seed));
    model_.reserve_positions(config.train.sequence_length);
  }

  double run(const Batch& batch) {
    double loss = 0;
    for (size_t i = 0; i < batch.micro.size(); ++i) loss += run(batch, i);
    return loss / static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
  }
  ParamStore& store() { return store_; }

 private:
  double run(const Batch& batch, size_t i) {
    const auto labels = static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
    const BatchTensors tensors = to_device(stream_.device(), batch.micro[i]);
    Tape tape(stream_, source_, Tape::Mode::training);
    LayerContext context{.tape = tape,
                         .batch = tensors,
                         .share = static_cast<double>(batch.micro[i].valid_labels) / labels};
    if (config_.model.moe.balance.global_batch > 0) context.loads = &loads_;
    std::vector<PredictionResult> predictions;
    const HeadLoss::Result result = model_.run(
        context,
        {.loss_scale = 1 / labels, .z_loss = config_.train.z_loss, .predictions = &predictions});
    if (context.loads) add_loads(tape);
    tape.backward();
    return result.loss_sum;
  }

  // The global-batch loss counts the micro-batches so far.
  void add_loads(const Tape& tape) {
    constexpr std::string_view suffix = ".routing";
    for (const auto& [name, figures] : tape.told()) {
      if (!name.ends_with(suffix)) continue;
      const RouteFigures f = RouteFigures::of(figures);
      add_load(loads_[name.substr(0, name.size() - suffix.size())], f.counts, f.tokens);
    }
  }

  const RunConfig& config_;
  Stream stream_;
  ParamStore store_;
  StoreSource source_;
  Transformer model_;
  ExpertLoads loads_;
};

}  // namespace

RunConfig on_one_rank(RunConfig config) {
  config.mesh = MeshConfig();
  config.parallel.data_parallel = 1;
  config.parallel.zero_stage = 0;
  config.pipeline.layers.clear();
  config.pipeline.overlap = false;
  config.parallel.sum_in_nodes = false;
  config.offload = {};
  return config;
}

RunConfig with_comparable_numbers(const RunConfig& config) {
  RunConfig held = config;
  const MeshConfig mesh = mesh_of(config, ranks_of(config));
  const bool both_ways = mesh.pp > 1 && placement_of({.name = config.pipeline.schedule}).order ==
                                            StageOrder::both_ways;
  if (mesh.dp() > 1 || both_ways) held.model.moe.balance.global_batch = 0;
  return held;
}

ParityStep run_parity_step(const RunConfig& config, const WrapWorld& wrap) {
  // A micro-batch in which the watchdog compares sends values beside their codes.
  RunConfig quiet = config;
  quiet.precision.watchdog.every = 0;
  StepRun run;
  // The world's own calls gather losses and norms, and bring gradients here to be compared.
  const auto traffic = std::make_shared<Traffic>();
  run_ranks(static_cast<int>(ranks_of(config)), [&](Communicator& world) {
    const std::unique_ptr<Communicator> counted = counting_splits(world, traffic);
    const std::unique_ptr<Communicator> wrapped = wrap ? wrap(*counted) : nullptr;
    const AbortOnUnwind abort(world);
    run_rank(quiet, wrapped ? *wrapped : *counted, run);
  });
  for (size_t op = 0; op < num_call_ops; ++op) {
    run.step.sent[op] = traffic->bytes(static_cast<Call::Op>(op));
  }
  run.step.formula = run.traffic.forecast().bytes_sent;
  return run.step;
}

ParityStep run_oracle_step(const RunConfig& config) {
  ParityStep step;
  const RunConfig alone = on_one_rank(config);
  run_ranks(1, [&](Communicator& world) {
    RankState rank(alone, world, 1);
    Oracle oracle(alone, rank);
    step.loss = oracle.run(rank.loader->batch(0, 0, 1));
    for (const Param& p : oracle.store().params()) {
      step.gradients[p.info.name] = doubles_of(oracle.store().gradient(p));
    }
  });
  step.norm = norm_of(step);
  return step;
}

}  // namespace shoestring
