#pragma once
// `shoestring bench peak`: what this machine reaches in matrix products and memory bandwidth.

#include <cstdint>
#include <string>
#include <vector>

#include "core/machine_limits.h"
#include "launcher/measurement.h"

namespace shoestring {

struct RunConfig;

struct BenchPeakOptions {
  int64_t threads = 0;     // 0: all cores
  int64_t rounds = 5;      // alternating repeats; rates are medians
  int64_t largest = 4096;  // of the square products, a power of two from 1,024
  std::string dtype = {};  // f32 or bf16; empty: both
  // A training config, whose model and micro-batch give the products' sizes; empty: the model of
  // the comparison with PyTorch (width 512, 4,096 tokens).
  std::string config = {};
  std::vector<std::string> overrides = {};  // section.key=value, as for training
};

// Per type: the best of all products as peak.<type>, then the square products and every product of
// a training step, whose goal is 0.93 of that peak; memory bandwidth last.
std::vector<Measurement> bench_peak(const BenchPeakOptions& options);

// The matrices of one micro-batch of a config, with the head's chunk as training in `dtype` cuts
// it.
ProductSizes product_sizes(const RunConfig& config, Dtype dtype);

}  // namespace shoestring
