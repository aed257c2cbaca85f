#pragma once
// `shoestring bench peak`: what this machine reaches in matrix products and memory bandwidth.

#include <cstdint>
#include <vector>

#include "launcher/measurement.h"

namespace shoestring {

struct BenchPeakOptions {
  int64_t threads = 0;     // 0: all cores
  int64_t rounds = 5;      // alternating repeats; rates are medians
  int64_t largest = 4096;  // of the square products, a power of two from 1,024
};

// Per type (f32, bf16): the square products, the best of them as peak.<type>, then every product of
// a training step of the benchmark model, whose goal is 0.93 of that peak; memory bandwidth last.
std::vector<Measurement> bench_peak(const BenchPeakOptions& options);

}  // namespace shoestring
