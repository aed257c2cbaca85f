#pragma once
// Muon: momentum whose matrices are orthogonalised by a Newton-Schulz iteration (Jordan 2024,
// "Muon: an optimizer for hidden layers"; scaling of Liu et al. 2025, arXiv 2502.16982,
// section 2.2).
//
//   M = mu M + g;  U = g + mu M (Nesterov) or M;  p = p - lr * (factor * NS(U)) - lr * decay * p
//
// Matrices are [rows, columns] as in the model. Each part of a fused tensor and each matrix of a
// stacked one (three dims) is a matrix by itself.

#include <cstdint>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/param.h"
#include "optim/adamw.h"
#include "optim/config.h"
#include "optim/shard.h"

namespace shoestring {

struct MuonMatrix {
  int param = 0;
  int64_t begin = 0;  // first element within the parameter
  int64_t rows = 0, columns = 0;
  FlatRange flat;
  int64_t elements() const { return rows * columns; }
};

// The matrices of the Muon parameters inside `owned`. A matrix that an owned range cuts is an error
// that names its parameter.
std::vector<MuonMatrix> muon_matrices(std::span<const Param> params, const OptimConfig& config,
                                      std::span<const FlatRange> owned);

// Multiplications and additions of the Newton-Schulz iterations of all matrices of a parameter, by
// which owners' shares are balanced: an iteration of [m, n], m <= n, has two products with the long
// side (2 m m n each) and one without (2 m m m).
double muon_flop(const ParamInfo& info, const MuonConfig& config);

// What the orthogonal matrix is multiplied by (MuonConfig::scale).
double muon_scale(const MuonConfig& config, int64_t rows, int64_t columns);

struct MuonStep {
  double lr = 0;     // of this matrix, multipliers included
  double decay = 0;  // base lr times weight decay
  double gradient_scale = 1;
  float* master = nullptr;
  const float* gradient = nullptr;
  BFloat16* copy = nullptr;  // null: no compute copy
  bool stochastic = false;   // rounding of bf16 momentum and of the copy
  RoundingKeys keys = {};
  uint32_t first = 0;  // low 32 bits of the index of the matrix's first element
};
// `momentum`: [rows * columns], f32 or bf16.
void update_muon(Device& device, const MuonConfig& config, const MuonMatrix& matrix,
                 const Tensor& momentum, const MuonStep& step);

}  // namespace shoestring
