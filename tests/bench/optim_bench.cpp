// The optimiser's passes in bytes/s, beside a plain copy of the same memory: an update that moves
// bytes as fast as memcpy cannot be made faster. Bytes are counted once per read and once per
// write. Arrays of 16M elements are far larger than the caches; "smoke" cases only show that the
// benchmark runs.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "core/parallel_for.h"
#include "optim/ema.h"
#include "optim/newton_schulz.h"
#include "optim/norm.h"
#include "optim/optimizer.h"

namespace shoestring {
namespace {

constexpr int64_t large = 16 << 20, small = 1 << 14;

std::vector<Param> one_parameter(int64_t elements) {
  Param p;
  p.info.name = "w";
  p.info.shape = {elements / 1024, 1024};
  p.elements = elements;
  return {p};
}

void optim_copy(benchmark::State& state, int64_t elements, int threads) {
  Device device(DeviceKind::cpu, 0, threads);
  std::vector<float> from(static_cast<size_t>(elements), 1), to(static_cast<size_t>(elements));
  for (auto _ : state) {
    parallel_for(device, elements, 65536, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin) * 4);
    });
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * elements * 8);
}

struct AdamwCase {
  int64_t elements;
  int threads;
  bool narrow;  // bf16 moments
  bool stochastic, copy;
};

void optim_adamw(benchmark::State& state, AdamwCase c) {
  Device device(DeviceKind::cpu, 0, c.threads);
  const std::vector<Param> params = one_parameter(c.elements);
  OptimConfig config;
  config.moments = c.narrow ? "bf16" : "f32";
  config.stochastic_rounding = c.stochastic;
  const FlatRange all{0, c.elements};
  Optimizer optimizer(device, params, config, {&all, 1}, 1);
  const size_t n = static_cast<size_t>(c.elements);
  std::vector<float> master(n, 0.5f), gradients(n, 0.1f);
  std::vector<BFloat16> copy(c.copy ? n : 0);
  UpdateInput input{.step = 1, .lr = 1e-3};
  input.master = {master, 0};
  input.gradients = {gradients, 0};
  input.copy = {copy, 0};
  for (auto _ : state) {
    optimizer.update(input);
    ++input.step;
  }
  const int64_t bytes = 8 + 4 + 4 * (c.narrow ? 2 : 4) + (c.copy ? 2 : 0);
  state.SetBytesProcessed(state.iterations() * c.elements * bytes);
  state.SetItemsProcessed(state.iterations() * c.elements);
}

void optim_norm(benchmark::State& state, int64_t elements, int threads) {
  Device device(DeviceKind::cpu, 0, threads);
  const std::vector<float> gradients(static_cast<size_t>(elements), 0.1f);
  const FlatRange all{0, elements};
  for (auto _ : state) benchmark::DoNotOptimize(square_sums(device, {gradients, 0}, all).data());
  state.SetBytesProcessed(state.iterations() * elements * 4);
}

void optim_average(benchmark::State& state, int64_t elements, int threads) {
  Device device(DeviceKind::cpu, 0, threads);
  const std::vector<Param> params = one_parameter(elements);
  const std::vector<float> master(static_cast<size_t>(elements), 0.1f);
  const FlatRange all{0, elements};
  WeightAverage average(device, params, {&all, 1}, {master, 0}, 0.999);
  for (auto _ : state) average.update({master, 0});
  state.SetBytesProcessed(state.iterations() * elements * 12);
}

// Items are floating-point operations: steps * (4 m m n + 2 m m m) for m <= n.
void optim_newton_schulz(benchmark::State& state, int64_t rows, int64_t columns, Dtype products) {
  Device device;
  std::vector<float> matrix(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<float>((i * 7919) % 101) - 50;
  for (auto _ : state) newton_schulz(device, matrix, rows, 5, products);
  const int64_t m = std::min(rows, columns), n = std::max(rows, columns);
  state.SetItemsProcessed(state.iterations() * 5 * (4 * m * m * n + 2 * m * m * m));
}

BENCHMARK_CAPTURE(optim_copy, smoke, small, 1);
BENCHMARK_CAPTURE(optim_adamw, smoke, {small, 2, true, true, true});
BENCHMARK_CAPTURE(optim_norm, smoke, small, 2);
BENCHMARK_CAPTURE(optim_newton_schulz, smoke, 16, 32, Dtype::f32);

BENCHMARK_CAPTURE(optim_copy, threads1, large, 1)->UseRealTime();
BENCHMARK_CAPTURE(optim_copy, all_threads, large, 0)->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, f32_threads1, {large, 1, false, false, false})->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, f32, {large, 0, false, false, false})->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, f32_copy, {large, 0, false, false, true})->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, f32_copy_stochastic, {large, 0, false, true, true})->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, bf16_copy, {large, 0, true, false, true})->UseRealTime();
BENCHMARK_CAPTURE(optim_adamw, bf16_copy_stochastic, {large, 0, true, true, true})->UseRealTime();
BENCHMARK_CAPTURE(optim_norm, threads1, large, 1)->UseRealTime();
BENCHMARK_CAPTURE(optim_norm, all_threads, large, 0)->UseRealTime();
BENCHMARK_CAPTURE(optim_average, all_threads, large, 0)->UseRealTime();
BENCHMARK_CAPTURE(optim_newton_schulz, f32_512x1536, 512, 1536, Dtype::f32)->UseRealTime();
BENCHMARK_CAPTURE(optim_newton_schulz, bf16_512x1536, 512, 1536, Dtype::bf16)->UseRealTime();

}  // namespace
}  // namespace shoestring
