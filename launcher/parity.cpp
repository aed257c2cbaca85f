#include "launcher/parity.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/check.h"
#include "core/text.h"
#include "launcher/mesh_layout.h"
#include "launcher/step.h"
#include "launcher/whole_model.h"
#include "parallel/comm/in_process.h"

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

void run_rank(const RunConfig& config, Communicator& world, std::mutex& mutex, ParityStep& step) {
  RunTrace trace({}, world.rank());
  RankState rank(config, world, 1, world.size());
  StepRunner runner(rank, trace);
  const Batch batch = rank.loader->batch(0, rank.part->data_rank(), rank.part->data_ranks());
  const StepReport report = runner.run(batch);
  {
    const std::lock_guard lock(mutex);
    for (size_t kind = 0; kind < num_memory_kinds; ++kind) {
      const int64_t peak = rank.device.ledger().peak(static_cast<MemoryKind>(kind));
      step.peak_memory[kind] = std::max(step.peak_memory[kind], peak);
    }
    if (world.rank() == 0) {
      step.loss = report.loss;
      step.norm = report.gradient_norm;
    }
  }
  gather_whole(rank, rank.gradients->gradients(),
               [&](const ParamInfo& whole, const Tensor& values) {
                 step.gradients[whole.name] = doubles_of(values);
               });
}

double norm_of(const ParityStep& step) {
  double squares = 0;
  for (const auto& [name, g] : step.gradients) {
    for (const double x : g) squares += x * x;
  }
  return std::sqrt(squares);
}

double relative(double x, double of) {
  return of == 0 ? std::abs(x) : std::abs(x - of) / std::abs(of);
}

// |a - b|, and |b|.
std::pair<double, double> distance(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size(), "gradients of different parameters");
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return {std::sqrt(difference), std::sqrt(norm)};
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
      ExpertLoad& load = loads_[name.substr(0, name.size() - suffix.size())];
      load.counts.resize(f.counts.size());
      for (size_t e = 0; e < f.counts.size(); ++e) load.counts[e] += f.counts[e];
      load.tokens += f.tokens;
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
  return config;
}

ParityStep run_parity_step(const RunConfig& config, const WrapWorld& wrap) {
  ParityStep step;
  std::mutex mutex;
  const auto traffic = std::make_shared<Traffic>();
  run_ranks(static_cast<int>(ranks_of(config)), [&](Communicator& world) {
    const std::unique_ptr<Communicator> wrapped = wrap ? wrap(world) : nullptr;
    const std::unique_ptr<Communicator> counted = counting(wrapped ? *wrapped : world, traffic);
    const AbortOnUnwind abort(world);
    run_rank(config, *counted, mutex, step);
  });
  for (size_t op = 0; op < num_call_ops; ++op) {
    step.bytes[op] = traffic->bytes(static_cast<Call::Op>(op));
  }
  return step;
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

ParityResult compare_steps(const RunConfig& config, const ParityStep& step, const ParityStep& one,
                           const ParityStep* oracle) {
  ParityResult result;
  result.loss = relative(step.loss, one.loss);
  result.norm = relative(step.norm, one.norm);
  for (const auto& [name, reference] : one.gradients) {
    const std::vector<double>& own = step.gradients.at(name);
    double error = 0;
    if (oracle != nullptr) {
      // Noise far below the parameter's own size says nothing.
      const std::vector<double>& truth = oracle->gradients.at(name);
      const auto [far, size] = distance(own, truth);
      const double near = std::max(distance(reference, truth).first, 1e-5 * size);
      error = near == 0 ? far : far / near;
    } else {
      const auto [far, size] = distance(own, reference);
      error = size == 0 ? far : far / size;
    }
    if (result.worst.empty() || !(error <= result.error)) {
      result.worst = name;
      result.error = error;
    }
  }
  if (oracle != nullptr) {
    // The distance of one rank to the truth, or what its rounding makes likely.
    const double noise = 1e-3;
    result.loss = relative(step.loss, oracle->loss);
    result.norm = relative(step.norm, oracle->norm);
    result.loss_limit = 1.5 * std::max(relative(one.loss, oracle->loss), noise);
    result.norm_limit = 1.5 * std::max(relative(one.norm, oracle->norm), 5 * noise);
    result.error_limit = 1.5;
    return result;
  }
  const bool equal =
      config.train.exact && config.mesh.tp == 1 && config.mesh.cp == 1 && config.mesh.etp == 1;
  result.loss_limit = result.norm_limit = equal ? 0 : 1e-6;
  result.error_limit = equal ? 0 : 1e-5;
  return result;
}

}  // namespace shoestring
