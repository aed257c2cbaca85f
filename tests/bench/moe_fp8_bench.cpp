// The experts of a sparse layer under the DeepSeek-V3 recipe, emulated, beside the same grouped
// products in bf16: the layer of moe_bench.cpp, other loads in every iteration, forward and
// backward with weight gradients. Codes of the weights are made anew in each iteration, as in each
// step.
//
// `slower` is FP8 / bf16 in seconds of the wall, `slower_processor` in seconds of all cores, which
// other programs on the machine disturb less. Medians of pairs that follow one another.

#include <benchmark/benchmark.h>

#include <ctime>

#include "core/fp8/layer.h"
#include "core/ops/dispatch.h"
#include "core/ops/fp8_grouped_linear.h"
#include "tests/bench/moe_case.h"

namespace shoestring {
namespace {

Fp8Recipe recipe_of(const std::string& accumulator) {
  PrecisionConfig config;
  config.recipe = "deepseek_v3";
  config.accumulator = accumulator;
  return resolve(config);
}

class Fp8ExpertsCase {
 public:
  Fp8ExpertsCase(Stream& stream, const Sizes& s, const std::string& accumulator)
      : stream_(stream),
        store_(
            stream.device(),
            {{.name = "layers.0.moe.experts.gate_up.weight",
              .shape = {s.experts * 2 * s.inner, s.width}},
             {.name = "layers.0.moe.experts.down.weight", .shape = {s.experts * s.width, s.inner}}},
            Dtype::bf16),
        plan_(recipe_of(accumulator), store_, 1) {
    store_.initialise(1);
  }
  // One micro-batch of a new step: y of the rows and the gradients for dy.
  void run(const Tensor& x, const Tensor& offsets, const Tensor& dy) {
    using Op = Fp8GroupedLinear;
    store_.raise_version();
    const Param &up = store_.params()[0], &down = store_.params()[1];
    const Op::Attributes first{.layer = plan_.layer(up)},
        second{.layer = plan_.layer(down), .swiglu = true};
    Op::InputSaved in1, in2;
    Op::WeightSaved w1, w2;
    Op::Owed owed1, owed2;
    const Tensor gu = Op::forward(stream_, first, {x, offsets}, {store_.weight(up)}, in1, w1)[0];
    Op::forward(stream_, second, {gu, offsets}, {store_.weight(down)}, in2, w2);
    const Tensor dgu = Op::grad_input(stream_, second, in2, {store_.weight(down)}, {dy}, owed2)[0];
    Op::grad_weight(stream_, second, w2, owed2, {store_.gradient(down)});
    Op::grad_input(stream_, first, in1, {store_.weight(up)}, {dgu}, owed1);
    Op::grad_weight(stream_, first, w1, owed1, {store_.gradient(up)});
  }

 private:
  Stream& stream_;
  ParamStore store_;
  Fp8Plan plan_;
};

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct Times {
  std::vector<double> wall, processor;
  void measure(bool count, const std::function<void()>& work) {
    const double before = processor_seconds(), seconds = seconds_of(work);
    if (!count) return;
    wall.push_back(seconds);
    processor.push_back(processor_seconds() - before);
  }
};

void fp8_beside_bf16(benchmark::State& state, Sizes s, std::string accumulator, bool zipf) {
  Device device;
  Stream stream = Stream::immediate(device);
  Experts plain(stream, s, s.experts, Dtype::bf16);
  Fp8ExpertsCase narrow(stream, s, accumulator);
  Choices choices(device, s, zipf);
  const Tensor x = random_tensor(device, {s.tokens, s.width}, Dtype::bf16, 1);
  const Tensor dy = random_tensor(device, {s.rows(), s.width}, Dtype::bf16, 1);
  Times bf16, fp8;
  auto once = [&](bool count) {
    Dispatch::Saved sent;
    const Tensor ids = choices.draw();
    const auto rows = Dispatch::forward(stream, {.experts = s.experts}, {x, ids}, sent);
    bf16.measure(count, [&] {
      plain.forward(rows[0], rows[1]);
      plain.backward(dy);
    });
    fp8.measure(count, [&] { narrow.run(rows[0], rows[1], dy); });
    if (count) state.SetIterationTime(fp8.wall.back());
  };
  once(false);  // touches fresh memory
  for (auto _ : state) once(true);
  state.counters["bf16_ms"] = 1e3 * median(bf16.wall);
  state.counters["fp8_ms"] = 1e3 * median(fp8.wall);
  state.counters["slower"] = median(fp8.wall) / median(bf16.wall);
  state.counters["slower_processor"] = median(fp8.processor) / median(bf16.processor);
}

const bool registered = [] {
  for (const char* accumulator : {"fast", "exact"}) {
    for (bool zipf : {false, true}) {
      for (bool small : {false, true}) {
        const std::string name = std::string(small ? "smoke_moe_fp8/" : "moe_fp8/") +
                                 (zipf ? "zipf/" : "uniform/") + accumulator;
        benchmark::RegisterBenchmark(name.c_str(), fp8_beside_bf16, small ? smoke : layer,
                                     std::string(accumulator), zipf)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace shoestring
