#pragma once
// What a step will hold at its worst moment, from the config alone, for the line at the start of a
// run. A test holds it against the ledger's peak.

#include <cstdint>

#include "launcher/run_config.h"

namespace shoestring {

// One micro-batch on one rank.
struct ForecastInput {
  int64_t sequences = 0, length = 0;
  int threads = 1;
  int ranks = 1;
  int64_t gradient_elements = 0;  // of the flat store
};

// Bytes beside the state (weights, gradients, moments) that a rank holds from its start.
struct MemoryForecast {
  int64_t activations = 0;    // saved for the backward pass, and the gradients on their way
  int64_t workspace = 0;      // inside the op that runs at that moment: logits, attention's panels
  int64_t communication = 0;  // staging of a bucket's reduction
  int64_t total() const { return activations + workspace + communication; }
};
MemoryForecast forecast_memory(const RunConfig& config, const ForecastInput& input);

}  // namespace shoestring
