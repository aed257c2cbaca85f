// How long the ranks of a mesh take from their start to their first instruction: a small model of
// DeepSeek-V3's shape over pipeline, expert and data ranks, as threads.
//
//   bench_start_of_ranks [--ranks 64] [--pp 4] [--ep 8] [--zero-stage 1] [--json]
//
// Rows: seconds until every rank has its part of the model and its groups, its gradients with their
// groups, and has come to the first instruction of the first step (goal: at most 5 s), of the
// slowest rank; and what all threads together computed for it.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <mutex>
#include <utility>
#include <vector>

#include "launcher/measurement.h"
#include "parallel/comm/in_process.h"
#include "parallel/mesh_step.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  int ranks = 64, pp = 4, ep = 8, zero_stage = 1;
};

ModelConfig small_deepseek(int layers, int experts) {
  ModelConfig m;
  m.layers = layers;
  m.hidden = 64;
  m.ffn = 128;
  m.heads = 4;
  m.kv_heads = 4;
  m.vocabulary = 512;
  m.max_positions = 64;
  m.mla = {.kv_latent = 16, .q_latent = 32, .nope_dim = 16, .rope_dim = 8, .v_dim = 16};
  m.moe.experts = experts;
  m.moe.chosen = 2;
  m.moe.ffn = 32;
  m.moe.shared = 1;
  m.moe.first_dense = 1;
  m.mtp.depth = 1;
  return m;
}

MicroBatch one_row(int64_t length, int64_t vocabulary) {
  MicroBatch m;
  m.sequences = 1;
  m.length = m.valid_labels = length;
  const auto n = static_cast<size_t>(length);
  for (size_t t = 0; t < n; ++t) {
    m.tokens.push_back(static_cast<int32_t>(static_cast<int64_t>(7 * t) % vocabulary));
    m.labels.push_back(static_cast<int32_t>(static_cast<int64_t>(7 * t + 7) % vocabulary));
    m.positions.push_back(static_cast<int32_t>(t));
  }
  m.first_key.assign(n, 0);
  m.document_start.assign(n, 0);
  m.sample_ids = {0};
  return m;
}

double cpu_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

// Of the slowest rank so far.
struct Marks {
  enum Mark : size_t { threads, part, gradients, instruction };
  void reach(Mark mark) {
    const std::lock_guard lock(mutex);
    seconds[mark] = std::chrono::duration<double>(Clock::now() - begin).count();
    cpu[mark] = cpu_seconds() - cpu_begin;
  }
  std::mutex mutex;
  Clock::time_point begin = Clock::now();
  double cpu_begin = cpu_seconds();
  std::array<double, 4> seconds = {}, cpu = {};
};

void start_rank(const Options& o, Communicator& world, Marks& marks) {
  marks.reach(Marks::threads);
  const ModelConfig model = small_deepseek(2 * o.pp, 2 * o.ep);
  PartConfig config;
  config.mesh.pp = o.pp;
  config.mesh.ep = o.ep;
  Device device(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  ModelPart part(model, config, world, device);
  marks.reach(Marks::part);
  ParamStore store(device, part.parameters(), Dtype::f32,
                   memory_of_stage(o.zero_stage, Dtype::f32, false));
  StepGradients gradients(part, store, compute, {.sharing = {.zero_stage = o.zero_stage}});
  gradients.shards().initialise(1);
  marks.reach(Marks::gradients);
  MeshStep step(part, store, gradients, compute, {});
  const std::vector<MicroBatch> own(static_cast<size_t>(2 * o.pp), one_row(32, model.vocabulary));
  const int64_t micros = 2 * o.pp * part.data_ranks();
  bool begun = false;
  MeshStep::Hooks hooks;
  hooks.begins = [&](const Instruction&, size_t) {
    if (!std::exchange(begun, true)) marks.reach(Marks::instruction);
  };
  step.run({.micros = own, .global_micro_batches = micros, .global_valid_labels = 32 * micros},
           hooks);
  gradients.finish();
}

std::vector<Measurement> measure(const Options& o) {
  Marks marks;
  run_ranks(o.ranks, [&](Communicator& world) { start_rank(o, world, marks); });
  const auto& s = marks.seconds;
  return {{.name = "seconds_to_threads", .value = s[Marks::threads], .unit = "s"},
          {.name = "seconds_to_parts_and_groups", .value = s[Marks::part], .unit = "s"},
          {.name = "seconds_to_gradients", .value = s[Marks::gradients], .unit = "s"},
          {.name = "seconds_to_first_instruction",
           .value = s[Marks::instruction],
           .unit = "s",
           .goal = 5,
           .at_most = true},
          {.name = "cpu_seconds_to_first_instruction",
           .value = marks.cpu[Marks::instruction],
           .unit = "s"}};
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  CLI::App app("how long ranks take from their start to their first instruction");
  shoestring::Options options;
  bool json = false;
  app.add_option("--ranks", options.ranks)->check(CLI::Range(2, 1024));
  app.add_option("--pp", options.pp)->check(CLI::Range(1, 64));
  app.add_option("--ep", options.ep)->check(CLI::Range(1, 256));
  app.add_option("--zero-stage", options.zero_stage)->check(CLI::Range(0, 3));
  app.add_flag("--json", json);
  CLI11_PARSE(app, argc, argv);
  shoestring::print_measurements(shoestring::measure(options), json, std::cout);
  return 0;
}
