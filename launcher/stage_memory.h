#pragma once
// What one micro-batch takes on a rank at one stage: what its passes leave behind, and what they
// hold at their worst moments.

#include <cstdint>
#include <vector>

#include "core/device.h"
#include "core/panel_product.h"
#include "launcher/memory_forecast.h"

namespace shoestring {

// Bytes inside one op.
struct OpWorkspaces {
  int64_t head = 0, attention = 0;
  int64_t experts = 0;  // one product of theirs on each thread
};

// A moment of a pass, of its own micro-batch.
struct PassMoment {
  int64_t activations = 0, workspace = 0;
  int64_t total() const { return activations + workspace; }
};
struct StageMemory {
  int64_t kept = 0;  // between the forward pass and the backward pass
  int64_t owed = 0;  // between the gradient of the input and that of the weights
  std::vector<PassMoment> forward = {}, backward = {};  // F; B
  std::vector<PassMoment> input = {};                   // I
};

// Blocks of a chunk of the model; the head's chunk has the prediction modules.
StageMemory stage_memory(const RunConfig& config, const ForecastInput& input, const Chunk& chunk,
                         const OpWorkspaces& workspaces);

// Staging of the collectives that run one at a time: rows to be summed (t - 1 others' pieces), keys
// on their way round the ring with the sums of their gradients, heads or experts' rows packed and
// as they arrive, a tied embedding's sum. One rank: nothing.
int64_t row_communication(const RunConfig& config, const ForecastInput& input);

// Of a weight's gradient, where core/matmul.cpp makes it of panels.
int64_t weight_product_bytes(const RunConfig& config, const Device& device,
                             const PanelSizes& sizes);

}  // namespace shoestring
