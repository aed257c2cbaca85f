// The experts of a sparse layer beside one dense mlp of the same total work: 64 experts, 6 chosen,
// 4,096 tokens, width 512, inner width 256, other loads in every iteration. Each iteration times
// both, forward and backward with weight gradients:
//
//   experts    dispatch, grouped products, SwiGLU, combine
//   dense      the same products and SwiGLU over the same number of rows with one expert
//
// `ratio` is dense / experts of the grouped products and SwiGLU alone, `ratio_whole` includes
// dispatch and combine. Medians; the goal is a ratio of 0.75 for even and uneven loads.

#include <benchmark/benchmark.h>

#include "core/ops/combine.h"
#include "core/ops/dispatch.h"
#include "tests/bench/moe_case.h"

namespace shoestring {
namespace {

void experts_beside_dense(benchmark::State& state, Sizes s, Dtype dtype, bool zipf) {
  Device device;
  Stream stream = Stream::immediate(device);
  Experts experts(stream, s, s.experts, dtype), one(stream, s, 1, dtype);
  Choices choices(device, s, zipf);
  const Tensor x = random_tensor(device, {s.tokens, s.width}, dtype, 1);
  const Tensor wide = random_tensor(device, {s.rows(), s.width}, dtype, 1);
  const Tensor gates = random_tensor(device, {s.tokens, s.chosen}, Dtype::f32, 1);
  std::vector<double> exchange, grouped, dense;
  auto once = [&](bool count) {
    const Tensor ids = choices.draw();
    Dispatch::Saved sent;
    Combine::Saved summed;
    Tensors<3> rows;
    Tensor y, drows, dx;
    double apart = seconds_of([&] {
      rows = Dispatch::forward(stream, {.experts = s.experts}, {x, ids}, sent);
    });
    double products = seconds_of([&] { y = experts.forward(rows[0], rows[1]); });
    apart += seconds_of([&] {
      Combine::forward(stream, {}, {y, gates, rows[2]}, summed);
      drows = Combine::grad_input(stream, {}, summed, {x})[0];
    });
    products += seconds_of([&] { dx = experts.backward(drows); });
    apart += seconds_of([&] {
      Dispatch::grad_input(stream, {.experts = s.experts}, sent, {dx, Tensor(), Tensor()});
    });
    const double whole = seconds_of([&] { one.dense(wide, wide); });
    if (!count) return;
    exchange.push_back(apart);
    grouped.push_back(products);
    dense.push_back(whole);
    state.SetIterationTime(apart + products);
  };
  once(false);  // touches fresh memory
  for (auto _ : state) once(true);
  state.counters["dense_ms"] = 1e3 * median(dense);
  state.counters["grouped_ms"] = 1e3 * median(grouped);
  state.counters["exchange_ms"] = 1e3 * median(exchange);
  state.counters["ratio"] = median(dense) / median(grouped);
  state.counters["ratio_whole"] = median(dense) / (median(grouped) + median(exchange));
}

const bool registered = [] {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (bool zipf : {false, true}) {
      for (bool small : {false, true}) {
        const std::string name = std::string(small ? "smoke_moe/" : "moe/") +
                                 (zipf ? "zipf/" : "uniform/") + std::string(name_of(dtype));
        benchmark::RegisterBenchmark(name.c_str(), experts_beside_dense, small ? smoke : layer,
                                     dtype, zipf)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace shoestring
