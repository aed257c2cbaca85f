// One training step, measured: the model, start and settings of tests/bench/pytorch_llama.py, one
// line of JSON like its own. tests/bench/peer runs both. With --profile it adds a table of ops.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "core/check.h"
#include "core/instruction_set.h"
#include "launcher/short_waits.h"
#include "nlohmann/json.hpp"
#include "parallel/comm/checked.h"
#include "parallel/comm/in_process.h"
#include "tests/bench/step/op_times.h"
#include "tests/bench/step/trainer.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

rusage used() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

// CPU time of all threads.
double processor_seconds(const rusage& usage) {
  auto seconds = [](timeval t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t peak_resident_bytes() { return int64_t{1024} * used().ru_maxrss; }

Json memory_of(const Ledger& ledger) {
  Json peaks;
  for (int kind = 0; kind < num_memory_kinds; ++kind) {
    const auto k = static_cast<MemoryKind>(kind);
    if (ledger.peak(k) > 0) peaks[std::string(name_of(k))] = ledger.peak(k);
  }
  peaks["all"] = ledger.peak_total();
  return peaks;
}

// One rank's steps; rank 0 prints.
void measure_rank(const StepOptions& options, const std::vector<MicroBatch>& batch,
                  const ScratchFolder& folder, Communicator& ranks) {
  const double start = now();
  const RunConfig config = config_of(options, batch.at(0).length, folder);
  const TraceRange timed{options.warmup + 1, options.warmup + options.steps};
  StepTrainer trainer(config, options, options.profile ? timed : TraceRange(), ranks);
  std::vector<double> losses, norms, seconds;
  double first = 0;
  rusage before{};
  for (int i = 0; i < options.warmup + options.steps; ++i) {
    if (i == options.warmup) before = used();
    const double begin = now();
    const StepReport report = trainer.step(batch);
    losses.push_back(report.loss);
    norms.push_back(report.gradient_norm);
    if (i >= options.warmup) seconds.push_back(now() - begin);
    if (i == 0) first = now() - start;
  }
  const rusage after = used();
  if (options.profile) trainer.write_trace(folder / "trace.json");
  if (ranks.rank() > 0) return;
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds.at(seconds.size() / 2);
  const auto tokens = static_cast<double>(tokens_of(batch));
  const double flop = tokens * training_flop_per_token(config.model, batch.at(0).length);
  Json line = {
      {"peer", "shoestring"},
      {"dtype", options.dtype},
      {"precision", options.precision.recipe},
      {"recompute", options.recompute},
      {"exact", options.exact},
      {"ranks", options.ranks},
      {"checked", options.checked},
      {"moments", *trainer.rank().config.optim.moments},
      {"threads_per_rank", trainer.rank().device.threads()},
      {"parameters", trainer.rank().store->parameters()},
      {"tokens_per_step", tokens_of(batch)},
      {"flop_per_step", flop},
      {"step_seconds_median", median},
      {"step_seconds_min", seconds.front()},
      {"processor_seconds", (processor_seconds(after) - processor_seconds(before)) / options.steps},
      {"page_faults", (after.ru_minflt - before.ru_minflt) / options.steps},
      {"tokens_per_second", tokens / median},
      {"gflops", flop / median / 1e9},
      {"first_step_seconds", first},
      {"peak_rss_mib", static_cast<double>(peak_resident_bytes()) / (1 << 20)},
      {"memory_peaks", memory_of(trainer.rank().device.ledger())},
      {"losses", losses},
      {"norms", norms}};
  std::cout << line.dump() << "\n";
  if (options.profile) print_op_times(std::cerr, folder / "trace.json", options.steps);
}

void measure_steps(const StepOptions& options) {
  const std::vector<MicroBatch> batch = batch_of(options);
  run_ranks(options.ranks, [&](Communicator& ranks) {
    const ScratchFolder folder;  // of this rank
    const std::unique_ptr<Communicator> comparing = options.checked ? checked(ranks) : nullptr;
    measure_rank(options, batch, folder, comparing ? *comparing : ranks);
  });
}

int run(int argc, char** argv) {
  CLI::App app("Measures whole training steps, or the machine's products, and prints JSON.");
  StepOptions o;
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
  app.add_option("--steps", o.steps, "steps that count")->check(CLI::Range(1, 100000));
  app.add_option("--dtype", o.dtype, "f32 or bf16");
  app.add_option("--recompute", o.recompute, "none, swiglu, norms, attention or block");
  app.add_option("--precision", o.precision.recipe,
                 "bf16, deepseek_v3, per_tensor, mxfp8 or block_gradients");
  app.add_option("--accumulator", o.precision.accumulator, "fast, exact or hopper");
  app.add_option("--moments", o.optim.moments, "f32 or bf16");
  app.add_option("--ranks", o.ranks, "threads as data-parallel ranks, sharing rows and cores")
      ->check(CLI::Range(1, 64));
  app.add_flag("--checked", o.checked, "ranks compare their calls before they make them");
  app.add_flag("--exact", o.exact, "exact mode: products and sums that no layout changes");
  app.add_flag("--stochastic-rounding", o.optim.stochastic_rounding, "of bf16 state");
  app.add_flag("--statistics", o.statistics, "train.statistics_every = 1");
  app.add_flag("--profile", o.profile, "a table of ops on stderr");
  CLI11_PARSE(app, argc, argv);
  measure_steps(o);
  return 0;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  shoestring::wait_shortly(argv);
  try {
    shoestring::cap_instruction_set_from_environment();
    return shoestring::run(argc, argv);
  } catch (const shoestring::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
