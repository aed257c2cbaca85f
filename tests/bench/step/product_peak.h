#pragma once
// The machine's own limit: the best matrix product among squares and the model's own shapes.

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/model/config.h"

namespace shoestring {

struct PeakRequest {
  ModelConfig model;
  int64_t rows = 4096;  // tokens of a micro-batch
  Dtype dtype = Dtype::f32;
  int threads = 0;
  int rounds = 5;  // repeats of each shape, alternating
};

struct BestProduct {
  double flops = 0;   // FLOP/s, median of the rounds
  std::string shape;  // "4096 x 1024 x 512, weight gradient"
};

BestProduct best_product(const PeakRequest& request);

}  // namespace shoestring
