#pragma once
// One training step under a layout, and how far it is from one rank's: what `shoestring parity`
// prints, and what tests plant faults in.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "launcher/parity_memory.h"
#include "launcher/run_config.h"
#include "parallel/comm/counting.h"

namespace shoestring {

// The first step of a run.
struct ParityStep {
  double loss = 0, norm = 0;
  std::map<std::string, std::vector<double>> gradients;  // of whole parameters
  // Routers' biases behind the step; NaN where ranks that hold the same have different ones.
  std::map<std::string, std::vector<double>> states = {};
  // Sent by all ranks of the mesh, by kind of call, and what the formulas say
  // (parallel/traffic_forecast.h): forward, backward, sums of gradients, gathers of parameters.
  std::array<int64_t, num_call_ops> sent = {}, formula = {};
  // Of the rank that is furthest from its forecast, above it first.
  MemoryFigures memory = {};
};

// `wrap`: what stands between a rank and its world; null: nothing. Tests put faults there, and
// bytes are counted behind it.
using WrapWorld = std::function<std::unique_ptr<Communicator>(Communicator& world)>;
// As many threads as the config has ranks.
ParityStep run_parity_step(const RunConfig& config, const WrapWorld& wrap = nullptr);

// The same on one rank in f64, of the masters' initial values; losses and norm as above, no bytes.
ParityStep run_oracle_step(const RunConfig& config);

// The config's run on one rank.
RunConfig on_one_rank(RunConfig config);

// The global-batch loss counts the tokens of a slot, which are other ones where data ranks or both
// directions of DualPipe take micro-batches at once. There numbers are compared without that loss:
// the config to compare with, its like elsewhere.
RunConfig with_comparable_numbers(const RunConfig& config);

}  // namespace shoestring
