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

std::vector<std::string> misses_of_bytes(const ParityStep& step) {
  std::vector<std::string> misses;
  for (size_t op = 0; op < num_call_ops; ++op) {
    const int64_t sent = step.sent[op], formula = step.formula[op];
    if (sent == formula) continue;
    misses.push_back(cat(name_of(static_cast<Call::Op>(op)), ": ", sent, " bytes sent, ", formula,
                         " by the formula (", sent > formula ? "+" : "", sent - formula, ")"));
  }
  return misses;
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

// A loss or a norm is one number, and its distance from the truth one draw of rounding noise: over
// six seeds of a tiny model one rank's loss in bf16 was 5e-7 to 5e-5 away, layouts' 6e-6 to 8e-5,
// norms 9e-5 to 5e-4 and 1e-4 to 1e-3. Where one rank drew a small one by chance, the limit is what
// others draw. And noise of d times a gradient's length, whatever its direction, makes it longer by
// about d^2 / 2, give or take. A parameter's distance is a sum over its elements and needs no
// floor.
struct Floors {
  double loss, norm;
};
constexpr Floors floors_of_bf16 = {1e-4, 1e-3}, floors_of_fp8 = {2.5e-4, 2.5e-3};

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

bool must_be_equal(const RunConfig& config) {
  return config.train.exact && config.mesh.tp * config.mesh.cp * config.mesh.etp == 1;
}

bool needs_oracle(const RunConfig& config) {
  return (config.train.dtype != "f32" || config.precision.on()) && !must_be_equal(config);
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

ParityResult compare_steps(const RunConfig& config, const ParityStep& step, const ParityStep& one,
                           const ParityStep* oracle) {
  check((oracle != nullptr) == needs_oracle(config), "the oracle is for rounded numbers alone");
  ParityResult result;
  result.bytes = misses_of_bytes(step);
  result.memory = misses_of_memory(step.memory);
  result.loss = relative(step.loss, one.loss);
  result.norm = relative(step.norm, one.norm);
  const auto meet = [&result](const std::string& name, double error) {
    if (!result.worst.empty() && error <= result.error) return;
    if (std::isnan(result.error)) return;
    result.worst = name;
    result.error = error;
  };
  double noise = 0;  // of one rank's gradients, squared
  for (const auto& [name, reference] : one.gradients) {
    const std::vector<double>& own = step.gradients.at(name);
    if (oracle == nullptr) {
      const auto [far, size] = distance(own, reference);
      meet(name, size == 0 ? far : far / size);
      continue;
    }
    // Noise far below the parameter's own size says nothing.
    const std::vector<double>& truth = oracle->gradients.at(name);
    const auto [far, size] = distance(own, truth);
    const double near = std::max(distance(reference, truth).first, 1e-5 * size);
    noise += near * near;
    meet(name, near == 0 ? far : far / near);
  }
  // Where values are rounded, tokens between two experts choose either.
  for (const auto& [name, reference] : one.states) {
    if (oracle != nullptr) break;
    const auto [far, size] = distance(step.states.at(name), reference);
    meet(name, size == 0 ? far : far / size);
  }
  if (oracle != nullptr) {
    const Floors floor = config.precision.on() ? floors_of_fp8 : floors_of_bf16;
    result.loss = relative(step.loss, oracle->loss);
    result.norm = relative(step.norm, oracle->norm);
    result.loss_limit = 1.5 * std::max(relative(one.loss, oracle->loss), floor.loss);
    const double longer = noise / (4 * oracle->norm * oracle->norm);
    result.norm_limit = 1.5 * std::max({relative(one.norm, oracle->norm), floor.norm, longer});
    result.error_limit = 1.5;
    return result;
  }
  const bool equal = must_be_equal(config);
  result.loss_limit = result.norm_limit = equal ? 0 : 1e-6;
  result.error_limit = equal ? 0 : 1e-5;
  return result;
}

}  // namespace shoestring
