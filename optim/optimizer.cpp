#include "optim/optimizer.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/param_index.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr int64_t chunk_elements = 65536;

Dtype moments_dtype(const OptimConfig& config) {
  const std::string name = config.moments.value_or("f32");
  const Dtype dtype = dtype_from_name(name);
  if (dtype != Dtype::f32 && dtype != Dtype::bf16) {
    fail_usage(cat("optim.moments must be f32 or bf16, not '", name, "'"));
  }
  return dtype;
}

uint32_t high_half(int64_t index) { return static_cast<uint32_t>(index >> 32); }

// Keys of the 2^32 elements that `index` lies in.
RoundingKeys keys_of(uint64_t seed, const Param& p, int64_t step, int64_t index) {
  return rounding_keys(seed, p.info.name, step, high_half(index));
}

}  // namespace

Optimizer::Optimizer(Device& device, std::span<const Param> params, const OptimConfig& config,
                     std::span<const FlatRange> owned, uint64_t seed)
    : device_(&device), params_(params), config_(config), seed_(seed) {
  if (config.optimizer != "adamw" && config.optimizer != "muon") {
    fail_usage(cat("optim.optimizer '", config.optimizer, "' is unknown; choose adamw or muon"));
  }
  const Dtype dtype = moments_dtype(config);
  auto zeros = [&](int64_t n) { return Tensor::zeros(device, {n}, dtype, MemoryKind::moments); };
  for (const Slice& slice : slices_of(params, owned)) {
    if (updated_by_muon(param_of(slice).info, config)) continue;
    const int64_t n = slice.flat.elements();
    adams_.push_back({slice, zeros(n), zeros(n)});
    for (int64_t begin = 0; begin < n;) {
      // What is drawn at random depends on the place in the whole parameter. Chunks end where the
      // upper half of that number changes, for the rounding keys.
      const WholeRun run = config.stochastic_rounding
                               ? whole_run(param_of(slice).info, slice.begin + begin, slice.end)
                               : WholeRun{slice.begin + begin, n - begin};
      const int64_t wrap = begin + (run.whole | 0xffffffff) + 1 - run.whole;
      const int64_t end = std::min({begin + run.elements, begin + chunk_elements, wrap});
      chunks_.push_back({adams_.size() - 1, begin, end, run.whole});
      begin = end;
    }
  }
  matrices_ = muon_matrices(params, config, owned);
  for (const MuonMatrix& matrix : matrices_) momenta_.push_back(zeros(matrix.elements()));
}

const Param& Optimizer::param_of(const Slice& slice) const {
  return params_[static_cast<size_t>(slice.param)];
}

AdamwCoefficients<float> Optimizer::coefficients(const Param& param,
                                                 const UpdateInput& input) const {
  return adamw_coefficients<float>({.step_size = input.lr * param.info.lr_multiplier,
                                    .decay = param.info.decay ? input.lr * config_.weight_decay : 0,
                                    .beta1 = config_.beta1,
                                    .beta2 = config_.beta2,
                                    .epsilon = config_.epsilon,
                                    .gradient_scale = input.gradient_scale},
                                   input.step);
}

// In the whole parameter, of which a rank may hold some of the matrices.
int64_t Optimizer::index_of(const MuonMatrix& matrix) const {
  const Param& p = params_[static_cast<size_t>(matrix.param)];
  return whole_run(p.info, matrix.begin, p.elements).whole;
}

AdamwRun Optimizer::run_of(const Chunk& chunk, const UpdateInput& input) const {
  const Adam& adam = adams_[chunk.adam];
  const FlatRange flat{adam.slice.flat.begin + chunk.begin, adam.slice.flat.begin + chunk.end};
  const int64_t state = chunk.begin * static_cast<int64_t>(size_of(adam.m.dtype()));
  AdamwRun run{.elements = chunk.end - chunk.begin,
               .master = input.master.at(flat),
               .copy = input.copy.empty() ? nullptr : input.copy.at(flat),
               .m = adam.m.raw() + state,
               .v = adam.v.raw() + state,
               .moments = adam.m.dtype(),
               .stochastic = config_.stochastic_rounding,
               .first = static_cast<uint32_t>(chunk.index)};
  if (run.stochastic) run.keys = keys_of(seed_, param_of(adam.slice), input.step, chunk.index);
  return run;
}

void Optimizer::update(const UpdateInput& input) {
  check(input.step >= 1, "the optimiser counts updates from 1");
  std::vector<AdamwCoefficients<float>> coefficients_of(adams_.size());
  for (size_t i = 0; i < adams_.size(); ++i) {
    coefficients_of[i] = coefficients(param_of(adams_[i].slice), input);
  }
  parallel_for_dynamic(*device_, static_cast<int64_t>(chunks_.size()), [&](int64_t i) {
    const Chunk& chunk = chunks_[static_cast<size_t>(i)];
    AdamwRun run = run_of(chunk, input);
    const int64_t begin = adams_[chunk.adam].slice.flat.begin;
    run.gradient = input.gradients.at({begin + chunk.begin, begin + chunk.end});
    adamw_run(run, coefficients_of[chunk.adam]);
  });
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const MuonMatrix& matrix = matrices_[i];
    const Param& p = params_[static_cast<size_t>(matrix.param)];
    update_muon(*device_, config_.muon, matrix, momenta_[i],
                {.lr = input.lr * config_.muon.lr_multiplier * p.info.lr_multiplier,
                 .decay = p.info.decay ? input.lr * config_.weight_decay : 0,
                 .gradient_scale = input.gradient_scale,
                 .master = input.master.at(matrix.flat),
                 .gradient = input.gradients.at(matrix.flat),
                 .copy = input.copy.empty() ? nullptr : input.copy.at(matrix.flat),
                 .stochastic = config_.stochastic_rounding,
                 .keys = keys_of(seed_, p, input.step, index_of(matrix)),
                 .first = static_cast<uint32_t>(index_of(matrix))});
  }
}

void Optimizer::refresh_copies(const UpdateInput& input) const {
  if (input.copy.empty()) return;
  parallel_for_dynamic(*device_, static_cast<int64_t>(chunks_.size()), [&](int64_t i) {
    copy_run(run_of(chunks_[static_cast<size_t>(i)], input));
  });
  parallel_for_dynamic(*device_, static_cast<int64_t>(matrices_.size()), [&](int64_t i) {
    const MuonMatrix& matrix = matrices_[static_cast<size_t>(i)];
    const Param& p = params_[static_cast<size_t>(matrix.param)];
    copy_run({.elements = matrix.elements(),
              .master = input.master.at(matrix.flat),
              .copy = input.copy.at(matrix.flat),
              .stochastic = config_.stochastic_rounding,
              .keys = keys_of(seed_, p, input.step, index_of(matrix)),
              .first = static_cast<uint32_t>(index_of(matrix))});
  });
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> all;
  for (const Adam& adam : adams_) {
    const Slice& s = adam.slice;
    all.push_back({param_of(s).info.name, "m", s.begin, s.end, adam.m});
    all.push_back({param_of(s).info.name, "v", s.begin, s.end, adam.v});
  }
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const MuonMatrix& matrix = matrices_[i];
    all.push_back({params_[static_cast<size_t>(matrix.param)].info.name, "momentum", matrix.begin,
                   matrix.begin + matrix.elements(), momenta_[i]});
  }
  return all;
}

}  // namespace shoestring
