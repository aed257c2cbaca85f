#pragma once
// The part of the memory forecast that an FP8 recipe makes different: what each block keeps, what
// its backward pass holds at its worst moment, and the codes of the weights. docs/fp8.md lists what
// is kept; the moments follow the order of the tape (core/layers). In a micro-batch that is probed
// the values stay beside their codes, and every product is there twice.

#include <cstdint>
#include <string>
#include <vector>

#include "core/fp8/recipe.h"
#include "launcher/run_config.h"

namespace shoestring {

struct Fp8ForecastInput {
  int64_t sequences = 0, length = 0;
  int threads = 1;
  bool probed = false;                   // the watchdog compares in it (core/fp8/layer.h)
  std::vector<std::string> fallen = {};  // matrices that are multiplied in train.dtype already
  int64_t head_workspace = 0;            // bytes inside the head's loss
  int64_t attention_workspace = 0;       // inside attention's backward pass
};

// Bytes at the worst moment of a micro-batch.
struct Fp8Forecast {
  int64_t activations = 0, workspace = 0;
  int64_t weight_codes = 0;  // that live from step to step
};

// Of a config whose precision is on().
Fp8Forecast forecast_fp8(const RunConfig& config, const Fp8ForecastInput& input);

}  // namespace shoestring
