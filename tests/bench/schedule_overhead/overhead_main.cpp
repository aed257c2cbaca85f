// What the engine adds to an instruction: a schedule on one rank, whose stages do nothing but call
// a function, beside the bare loop of the same calls.
//
//   bench_schedule_overhead [--micro-batches 4096] [--rounds 20] [--json]
//
// Rows: engine and loop seconds an instruction (of F, I and W), and what the engine adds (goal: at
// most 5e-6). Also of passes in parts, which hand the right to compute from thread to thread.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>

#include "launcher/measurement.h"
#include "parallel/comm/in_process.h"
#include "parallel/passes.h"
#include "parallel/pipeline_engine.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

// Two stages hand one small tensor on.
class Nothing : public StageWork {
 public:
  Nothing(Device& device, int parts) : value_(device, {16}, Dtype::f32), parts_(parts) {}
  Boundary boundary(int, int) override { return {.shape = value_.shape()}; }
  Tensor forward(int, int, const Tensor&) override { return count(), value_; }
  Tensor backward_input(int, int, const Tensor&) override { return count(), value_; }
  void backward_weight(int, int) override { count(); }
  void forward_parts(int, int, const Tensor&, PartGate& gate) override {
    for (int k = 0; k < parts_; ++k) gate.enter(Do::F, k), count();
    gate.give(value_);
  }
  void backward_parts(int, int, const Tensor&, PartGate& gate) override {
    for (int k = parts_; k-- > 0;) {
      gate.enter(Do::I, k), count();
      if (k == 0) gate.give(value_);
      gate.enter(Do::W, k), count();
    }
  }
  int64_t calls() const { return calls_; }

 private:
  void count() { ++calls_; }
  Tensor value_;
  int parts_;
  int64_t calls_ = 0;
};

// The same calls in the same order, values in a table.
void bare_loop(const Schedule& s, StageWork& work) {
  const auto micros = static_cast<size_t>(s.where.micros);
  std::vector<Tensor> table(2 * static_cast<size_t>(s.where.stages()) * micros);
  const auto at = [&](bool up, int stage, int micro) -> Tensor& {
    const size_t row = static_cast<size_t>(stage) * 2 + (up ? 0 : 1);
    return table[row * micros + static_cast<size_t>(micro)];
  };
  const int last = s.where.stages() - 1;
  for (const Instruction& i : s.ranks[0]) {
    if (i.what == Do::F) {
      Tensor y = work.forward(i.stage, i.micro, std::exchange(at(true, i.stage, i.micro), {}));
      if (i.stage < last) at(true, i.stage + 1, i.micro) = std::move(y);
    } else if (i.what == Do::I) {
      Tensor dx =
          work.backward_input(i.stage, i.micro, std::exchange(at(false, i.stage, i.micro), {}));
      if (i.stage > 0) at(false, i.stage - 1, i.micro) = std::move(dx);
    } else {
      work.backward_weight(i.stage, i.micro);
    }
  }
}

template <class F>
double best_of(int rounds, F&& body) {
  double best = 1e9;
  for (int r = 0; r < rounds; ++r) {
    const auto begin = Clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

double run_engine(const Schedule& schedule, int parts, int rounds) {
  double seconds = 0;
  run_ranks(1, [&](Communicator& pipeline) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream compute = Stream::immediate(device);
    PipelineEngine engine(pipeline, compute, schedule);
    Nothing work(device, parts);
    seconds = best_of(rounds, [&] { engine.run(work); });
  });
  return seconds / static_cast<double>(schedule.ranks[0].size());
}

std::vector<Measurement> measure(int micros, int rounds) {
  // ZB-V on one rank: two stages, F, I and W, values handed on.
  const Schedule plain = make_schedule({.name = "zb-v", .ranks = 1, .micros = micros});
  const double engine = run_engine(add_transfers(plain), 0, rounds);
  Device device(DeviceKind::cpu, 0, 1);
  Nothing work(device, 0);
  const double loop =
      best_of(rounds, [&] { bare_loop(plain, work); }) / static_cast<double>(plain.ranks[0].size());
  check(work.calls() == rounds * static_cast<int64_t>(plain.ranks[0].size()), "calls were lost");

  Schedule pairs =
      add_transfers(make_schedule({.name = "dualpipev", .ranks = 1, .micros = micros / 8}));
  const std::vector<StageSegments> segments(2, parse_segments("attention,mlp"));
  const Schedule parts = split_segments(std::move(pairs), segments, {});
  return {{.name = "engine_seconds_per_instruction", .value = engine, .unit = "s"},
          {.name = "loop_seconds_per_instruction", .value = loop, .unit = "s"},
          {.name = "overhead_per_instruction",
           .value = engine - loop,
           .unit = "s",
           .goal = 5e-6,
           .at_most = true},
          {.name = "seconds_per_part",
           .value = run_engine(parts, 2, std::min(rounds, 3)),
           .unit = "s"}};
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  CLI::App app("what the engine adds to an instruction");
  int micros = 4096, rounds = 20;
  bool json = false;
  app.add_option("--micro-batches", micros)->check(CLI::Range(16, 32000));
  app.add_option("--rounds", rounds)->check(CLI::Range(1, 1000));
  app.add_flag("--json", json);
  CLI11_PARSE(app, argc, argv);
  shoestring::print_measurements(shoestring::measure(micros, rounds), json, std::cout);
  return 0;
}
