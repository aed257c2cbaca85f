#include "optim/muon.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "optim/newton_schulz.h"

namespace shoestring {
namespace {

constexpr int64_t grain = 16384;  // elements of one thread's piece

// Rows of the matrices stacked or fused in a parameter, in order.
std::vector<int64_t> matrix_rows(const ParamInfo& info) {
  const int64_t rows = info.shape[-2];
  std::vector<int64_t> parts = info.parts.empty() ? std::vector<int64_t>{rows} : info.parts;
  int64_t sum = 0;
  for (int64_t part : parts) sum += part;
  if (sum != rows) {
    fail(cat("the parts of ", info.name, " have ", sum, " rows, but it is ", info.shape.text()));
  }
  std::vector<int64_t> all;
  for (int64_t i = 0; i < info.shape.rows() / std::max<int64_t>(rows, 1); ++i) {
    all.insert(all.end(), parts.begin(), parts.end());
  }
  return all;
}

// Takes the gradient into the momentum and writes the direction to orthogonalise.
template <class M>
void blend(const MuonConfig& config, const MuonStep& step, FlatRange part, M* momentum,
           float* direction) {
  const float mu = static_cast<float>(config.momentum);
  const float scale = static_cast<float>(step.gradient_scale);
  for (int64_t i = part.begin; i < part.end; ++i) {
    const float g = step.gradient[i] * scale;
    const float m = mu * static_cast<float>(momentum[i]) + g;
    direction[i] = config.nesterov ? g + mu * m : m;
    if constexpr (sizeof(M) == 2) {
      const uint32_t index = step.first + static_cast<uint32_t>(i);
      momentum[i] =
          step.stochastic ? round_stochastic(m, rounding_bits(step.keys, index, 0)) : M(m);
    } else {
      momentum[i] = m;
    }
  }
}

}  // namespace

std::vector<MuonMatrix> muon_matrices(std::span<const Param> params, const OptimConfig& config,
                                      std::span<const FlatRange> owned) {
  std::vector<MuonMatrix> matrices;
  for (const Slice& slice : slices_of(params, owned)) {
    const Param& p = params[static_cast<size_t>(slice.param)];
    if (!updated_by_muon(p.info, config)) continue;
    int64_t begin = 0;
    for (int64_t rows : matrix_rows(p.info)) {
      const int64_t columns = p.info.shape.columns(), end = begin + rows * columns;
      const MuonMatrix matrix{.param = slice.param,
                              .begin = begin,
                              .rows = rows,
                              .columns = columns,
                              .flat = {p.offset + begin, p.offset + end}};
      begin = end;
      if (matrix.begin >= slice.end || end <= slice.begin) continue;
      if (matrix.begin < slice.begin || end > slice.end) {
        fail(cat("Muon needs whole matrices, but only elements [", slice.begin, ", ", slice.end,
                 ") of ", p.info.name, " ", p.info.shape.text(), " are owned here"));
      }
      matrices.push_back(matrix);
    }
  }
  return matrices;
}

double muon_flop(const ParamInfo& info, const MuonConfig& config) {
  double flop = 0;
  for (const int64_t rows : matrix_rows(info)) {
    const auto a = static_cast<double>(rows), b = static_cast<double>(info.shape.columns());
    const double small = std::min(a, b), large = std::max(a, b);
    flop += 2 * small * small * (2 * large + small);
  }
  return static_cast<double>(config.steps) * flop;
}

double muon_scale(const MuonConfig& config, int64_t rows, int64_t columns) {
  const double r = static_cast<double>(rows), c = static_cast<double>(columns);
  if (config.scale == "moonlight") return 0.2 * std::sqrt(std::max(r, c));
  if (config.scale == "keller") return std::sqrt(std::max(1.0, r / c));
  fail_usage(cat("optim.muon.scale '", config.scale, "' is unknown; choose moonlight or keller"));
}

void update_muon(Device& device, const MuonConfig& config, const MuonMatrix& matrix,
                 const Tensor& momentum, const MuonStep& step) {
  Tensor direction(device, {matrix.elements()}, Dtype::f32, MemoryKind::workspace);
  float* u = direction.data<float>();
  parallel_for(device, matrix.elements(), grain, [&](int64_t begin, int64_t end) {
    if (momentum.dtype() == Dtype::f32) {
      blend(config, step, {begin, end}, momentum.data<float>(), u);
    } else {
      blend(config, step, {begin, end}, momentum.data<BFloat16>(), u);
    }
  });
  newton_schulz(device, direction.span<float>(), matrix.rows, config.steps,
                dtype_from_name(config.products));
  const float size = static_cast<float>(step.lr * muon_scale(config, matrix.rows, matrix.columns));
  const float decay = static_cast<float>(step.decay);
  parallel_for(device, matrix.elements(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      step.master[i] -= size * u[i] + decay * step.master[i];
    }
    copy_run({.elements = end - begin,
              .master = step.master + begin,
              .copy = step.copy == nullptr ? nullptr : step.copy + begin,
              .stochastic = step.stochastic,
              .keys = step.keys,
              .first = step.first + static_cast<uint32_t>(begin)});
  });
}

}  // namespace shoestring
