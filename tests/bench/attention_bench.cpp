// Attention by shape, type and threads. GFLOP/s count the causal half of the scores only: forward
// two products of hd (and hv) a score, backward two and a half times that.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/ops/attention.h"
#include "core/random.h"

namespace shoestring {
namespace {

struct BenchCase {
  std::string name;
  Attention::Attributes attributes;
};

template <class T>
struct Problem {
  Device device;
  Stream stream = Stream::immediate(device);
  Attention::Attributes attributes;
  Tensors<4> inputs;
  Tensor dy;

  Problem(const Attention::Attributes& a, int threads)
      : device(DeviceKind::cpu, 0, threads), attributes(a) {
    attributes.scale = 1 / std::sqrt(static_cast<double>(a.head_dim));
    const int64_t tokens = a.batch * a.length;
    inputs = {normal({tokens, a.q_heads * a.head_dim}, "q"),
              normal({tokens, a.kv_heads * a.head_dim}, "k"),
              normal({tokens, a.kv_heads * a.v_head_dim}, "v"),
              Tensor::zeros(device, {a.batch, a.length}, Dtype::i32)};
    dy = normal({tokens, a.q_heads * a.v_head_dim}, "dy");
  }
  Tensor normal(Shape shape, std::string_view name) {
    Tensor x(device, std::move(shape), dtype_of<T>);
    const RandomStream random(1, name);
    uint64_t i = 0;
    for (T& value : x.span<T>()) value = T(static_cast<float>(random.normal(i++)));
    return x;
  }
  double forward_flops() const {
    const Attention::Attributes& a = attributes;
    const double scores = 0.5 * static_cast<double>(a.length) * static_cast<double>(a.length + 1);
    return 2 * scores * static_cast<double>(a.batch * a.q_heads * (a.head_dim + a.v_head_dim));
  }
};

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

template <class T>
void forward(benchmark::State& state, const Attention::Attributes& a) {
  Problem<T> p(a, static_cast<int>(state.range(0)));
  for (auto _ : state) {
    Attention::Saved saved;
    Attention::forward(p.stream, p.attributes, p.inputs, saved);
  }
  report(state, p.forward_flops());
}

template <class T>
void backward(benchmark::State& state, const Attention::Attributes& a) {
  Problem<T> p(a, static_cast<int>(state.range(0)));
  Attention::Saved saved;
  Attention::forward(p.stream, p.attributes, p.inputs, saved);
  for (auto _ : state) Attention::grad_input(p.stream, p.attributes, saved, {p.dy});
  report(state, 2.5 * p.forward_flops());
}

template <class T>
void both(benchmark::State& state, const Attention::Attributes& a) {
  Problem<T> p(a, static_cast<int>(state.range(0)));
  for (auto _ : state) {
    Attention::Saved saved;
    Attention::forward(p.stream, p.attributes, p.inputs, saved);
    Attention::grad_input(p.stream, p.attributes, saved, {p.dy});
  }
  report(state, 3.5 * p.forward_flops());
}

template <class T>
void add(const BenchCase& c, const std::string& type) {
  const auto one = [&](const char* pass,
                       void (*run)(benchmark::State&, const Attention::Attributes&)) {
    benchmark::RegisterBenchmark(("attention/" + c.name + "/" + type + "/" + pass).c_str(), run,
                                 c.attributes)
        ->ArgName("threads")
        ->Arg(1)
        ->Arg(2)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  };
  one("forward", forward<T>);
  one("backward", backward<T>);
  one("both", both<T>);
}

const bool added = [] {
  const auto sizes = [](int64_t batch, int64_t length, int64_t q_heads, int64_t kv_heads,
                        int64_t head_dim) {
    return Attention::Attributes{.batch = batch,
                                 .length = length,
                                 .q_heads = q_heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = head_dim,
                                 .v_head_dim = head_dim};
  };
  for (const BenchCase& c :
       {BenchCase{"smoke", sizes(1, 128, 2, 1, 32)}, BenchCase{"short", sizes(8, 512, 8, 4, 64)},
        BenchCase{"long", sizes(1, 2048, 8, 4, 64)},
        BenchCase{"wide", sizes(1, 2048, 8, 2, 128)}}) {
    add<float>(c, "f32");
    add<BFloat16>(c, "bf16");
  }
  return true;
}();

}  // namespace
}  // namespace shoestring
