// One training step, measured: the model, start and settings of tests/bench/pytorch_llama.py, one
// line of JSON like its own. tests/bench/peer runs both. With --peak it measures the machine's
// products instead, with --profile it adds a table of ops.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "core/check.h"
#include "core/model/transformer.h"
#include "core/random.h"
#include "nlohmann/json.hpp"
#include "optim/norm.h"
#include "optim/optimizer.h"
#include "tests/bench/step/llama_files.h"
#include "tests/bench/step/op_times.h"
#include "tests/bench/step/product_peak.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelConfig model = {
      .layers = 12, .hidden = 512, .ffn = 1408, .heads = 8, .kv_heads = 4, .vocabulary = 8192};
  int64_t rows = 8, length = 512;  // of a random batch
  int threads = 0, warmup = 2, steps = 6;
  bool exact = false, profile = false, peak = false;
  std::string weights, batch, dtype = "f32", recompute = "none";
  OptimConfig optim = {};  // its defaults are the script's
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// CPU time of all threads, seconds.
double processor_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + 1e-6 * t.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

std::vector<MicroBatch> random_rows(const Options& options) {
  const RandomStream random(1, "tokens");
  std::vector<int32_t> ids;
  const auto vocabulary = static_cast<uint64_t>(options.model.vocabulary);
  for (int64_t i = 0; i < options.rows * (options.length + 1); ++i) {
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(i), vocabulary)));
  }
  return {whole_rows(ids, options.rows, options.length)};
}

class Trainer {
 public:
  explicit Trainer(const Options& options)
      : options_(options),
        batch_(options.batch.empty() ? random_rows(options) : load_token_rows(options.batch)),
        device_(DeviceKind::cpu, 0, options.threads),
        model_config_(fitted(options.model, batch_)),
        store_(device_, parameters_of(model_config_, whole_model(model_config_)),
               dtype_from_name(options.dtype)),
        model_(model_config_, store_, whole_model(model_config_)),
        all_{0, store_.elements()},
        optimizer_(device_, store_.params(), options.optim, {&all_, 1}, 1) {
    options.weights.empty() ? store_.initialise(1) : load_llama_weights(options.weights, store_);
  }

  struct Outcome {
    double loss = 0, norm = 0;
  };
  Outcome step(int64_t number) {
    Outcome outcome;
    int64_t labels = 0;
    for (const MicroBatch& micro : batch_) labels += micro.valid_labels;
    {
      const OpTimes::Span span(ops_, "zero gradients");
      store_.zero_gradients();
    }
    for (const MicroBatch& micro : batch_) {
      outcome.loss += run(micro, labels) / static_cast<double>(labels);
    }
    {
      const OpTimes::Span span(ops_, "gradient norm");
      outcome.norm = global_norm(device_, store_.gradients());
    }
    const OpTimes::Span span(ops_, "adamw");
    optimizer_.update({.step = number,
                       .lr = options_.optim.lr,
                       .gradient_scale = clip_coefficient(outcome.norm, options_.optim.clip),
                       .master = {store_.master()},
                       .gradients = {store_.gradients()},
                       .copy = {store_.compute_copy()}});
    store_.raise_version();
    return outcome;
  }

  int64_t tokens() const {
    int64_t sum = 0;
    for (const MicroBatch& m : batch_) sum += m.sequences * m.length;
    return sum;
  }
  double flop() const {
    return static_cast<double>(tokens()) *
           training_flop_per_token(model_config_, batch_.at(0).length);
  }
  const ParamStore& store() const { return store_; }
  const Ledger& ledger() { return device_.ledger(); }
  int threads() const { return device_.threads(); }
  OpTimes& ops() { return ops_; }

 private:
  static ModelConfig fitted(ModelConfig config, const std::vector<MicroBatch>& batch) {
    config.max_positions = batch.at(0).length;
    return config;
  }
  double run(const MicroBatch& micro, int64_t labels) {
    const BatchTensors tensors = to_device(device_, micro);
    StoreSource source(store_);
    Tape tape(stream_, source, Tape::Mode::training);
    if (options_.profile) tape.observe(&ops_);
    LayerContext context{.tape = tape,
                         .batch = tensors,
                         .recompute = recompute_from_name(options_.recompute),
                         .exact = options_.exact};
    const double loss = model_
                            .run(context, {.loss_scale = 1.0 / static_cast<double>(labels),
                                           .exact = options_.exact})
                            .loss_sum;
    tape.backward();
    return loss;
  }

  Options options_;
  std::vector<MicroBatch> batch_;
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ModelConfig model_config_;
  ParamStore store_;
  Transformer model_;
  FlatRange all_;
  Optimizer optimizer_;
  OpTimes ops_;
};

Json memory_of(const Ledger& ledger) {
  Json peaks;
  for (int kind = 0; kind < num_memory_kinds; ++kind) {
    const auto k = static_cast<MemoryKind>(kind);
    if (ledger.peak(k) > 0) peaks[std::string(name_of(k))] = ledger.peak(k);
  }
  peaks["all"] = ledger.peak_total();
  return peaks;
}

void measure_steps(const Options& options) {
  const double start = now();
  Trainer trainer(options);
  std::vector<double> losses, norms, seconds;
  double first = 0, processor = 0;
  for (int i = 0; i < options.warmup + options.steps; ++i) {
    if (i == options.warmup) {
      processor = processor_seconds();
      trainer.ops().clear();
    }
    const double begin = now();
    const Trainer::Outcome outcome = trainer.step(i + 1);
    losses.push_back(outcome.loss);
    norms.push_back(outcome.norm);
    if (i >= options.warmup) seconds.push_back(now() - begin);
    if (i == 0) first = now() - start;
  }
  processor = (processor_seconds() - processor) / options.steps;
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds.at(seconds.size() / 2);
  Json line = {{"peer", "shoestring"},
               {"dtype", options.dtype},
               {"recompute", options.recompute},
               {"exact", options.exact},
               {"moments", options.optim.moments},
               {"threads", trainer.threads()},
               {"parameters", trainer.store().parameters()},
               {"tokens_per_step", trainer.tokens()},
               {"flop_per_step", trainer.flop()},
               {"step_seconds_median", median},
               {"step_seconds_min", seconds.front()},
               {"processor_seconds", processor},
               {"tokens_per_second", static_cast<double>(trainer.tokens()) / median},
               {"gflops", trainer.flop() / median / 1e9},
               {"first_step_seconds", first},
               {"peak_rss_mib", static_cast<double>(peak_resident_bytes()) / (1 << 20)},
               {"memory_peaks", memory_of(trainer.ledger())},
               {"losses", losses},
               {"norms", norms}};
  std::cout << line.dump() << "\n";
  if (options.profile) trainer.ops().print(std::cerr, options.steps);
}

void measure_peak(const Options& options) {
  const BestProduct best = best_product({.model = options.model,
                                         .rows = options.rows * options.length,
                                         .dtype = dtype_from_name(options.dtype),
                                         .threads = options.threads,
                                         .rounds = options.steps});
  std::cout
      << Json{{"dtype", options.dtype}, {"gflops", best.flops / 1e9}, {"shape", best.shape}}.dump()
      << "\n";
}

int run(int argc, char** argv) {
  CLI::App app("Measures whole training steps, or the machine's products, and prints JSON.");
  Options o;
  app.add_option("--weights", o.weights, "safetensors with a Llama's names; none: random");
  app.add_option("--batch", o.batch, ".npy, int32 [micro-batches, B, S + 1]; none: random");
  app.add_option("--micro-batch", o.rows, "sequences of a random batch");
  app.add_option("--seq", o.length, "tokens of its sequences");
  app.add_option("--layers", o.model.layers, "blocks");
  app.add_option("--dim", o.model.hidden, "width");
  app.add_option("--heads", o.model.heads, "query heads");
  app.add_option("--kv-heads", o.model.kv_heads, "key and value heads");
  app.add_option("--ffn", o.model.ffn, "inner width of the mlp");
  app.add_option("--vocab", o.model.vocabulary, "rows of embedding and head");
  app.add_option("--threads", o.threads, "cores to use; 0: all");
  app.add_option("--warmup", o.warmup, "steps before the clock starts");
  app.add_option("--steps", o.steps, "steps that count; repeats with --peak")
      ->check(CLI::Range(1, 100000));
  app.add_option("--dtype", o.dtype, "f32 or bf16");
  app.add_option("--recompute", o.recompute, "none, norms, attention or block");
  app.add_option("--moments", o.optim.moments, "f32 or bf16");
  app.add_flag("--exact", o.exact, "exact mode's products");
  app.add_flag("--stochastic-rounding", o.optim.stochastic_rounding, "of bf16 state");
  app.add_flag("--profile", o.profile, "a table of ops on stderr");
  app.add_flag("--peak", o.peak, "FLOP/s of the best product instead of a step");
  CLI11_PARSE(app, argc, argv);
  o.peak ? measure_peak(o) : measure_steps(o);
  return 0;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  try {
    return shoestring::run(argc, argv);
  } catch (const shoestring::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
