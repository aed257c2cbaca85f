#pragma once
// The part of the memory forecast that an FP8 recipe makes different: what each block keeps, what
// its backward pass holds at its worst moment, and the codes of the weights. docs/fp8.md lists what
// is kept; the moments follow the order of the tape (core/layers). In a micro-batch that is probed
// the values stay beside their codes, and every product is there twice.

#include <cstdint>
#include <string>
#include <vector>

#include "core/fp8/recipe.h"
#include "core/model/parameters.h"
#include "launcher/run_config.h"

namespace shoestring {

struct Fp8ForecastInput {
  int64_t rows = 0;        // of the residual stream, of a micro-batch on this rank
  int64_t tensor = 1;      // ranks that share rows, heads and inner widths out
  int64_t experts = 1;     // ranks that share experts out, each with as many rows as it brings
  int64_t slices = 1;      // of each expert's matrices, on ranks that all have its rows
  int64_t fixed_rows = 0;  // as in launcher/block_memory.h
  int64_t summing_nodes = 0;
  Chunk chunk = {};  // of the model; the head's has the prediction modules
  int threads = 1;
  bool probed = false;                   // the watchdog compares in it (core/fp8/layer.h)
  std::vector<std::string> fallen = {};  // matrices that are multiplied in train.dtype already
  int64_t head_workspace = 0;            // bytes inside the head's loss
  int64_t attention_workspace = 0;       // inside attention's backward pass
};

// Bytes of a micro-batch: what its forward pass leaves, and what each pass holds at most, what is
// inside an op included.
struct Fp8Forecast {
  int64_t kept = 0, forward = 0, backward = 0;
};

// Of a config whose precision is on().
Fp8Forecast forecast_fp8(const RunConfig& config, const Fp8ForecastInput& input);

// Codes of a rank's weights, which live from step to step. `experts`: of a matrix of stacked ones
// on this rank.
int64_t forecast_codes(const RunConfig& config, const std::vector<ParamInfo>& params,
                       int64_t experts, const std::vector<std::string>& fallen);

}  // namespace shoestring
