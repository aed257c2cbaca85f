#pragma once
// One training step under a layout, and how far it is from one rank's: what `shoestring parity`
// prints, and what tests plant faults in.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/memory.h"
#include "launcher/run_config.h"
#include "parallel/comm/counting.h"

namespace shoestring {

// The first step of a run.
struct ParityStep {
  double loss = 0, norm = 0;
  std::map<std::string, std::vector<double>> gradients;    // of whole parameters
  std::array<int64_t, num_call_ops> bytes = {};            // sent, over all ranks, by kind of call
  std::array<int64_t, num_memory_kinds> peak_memory = {};  // of the rank that had most of each
};

// `wrap`: what stands between a rank and its world; null: nothing. Tests put faults there.
using WrapWorld = std::function<std::unique_ptr<Communicator>(Communicator& world)>;
// As many threads as the config has ranks.
ParityStep run_parity_step(const RunConfig& config, const WrapWorld& wrap = nullptr);

// The same on one rank in f64: the truth that bf16 and FP8 are measured against. Of the masters'
// initial values; losses and norm as above, no bytes.
ParityStep run_oracle_step(const RunConfig& config);

// The config's run on one rank.
RunConfig on_one_rank(RunConfig config);

struct ParityResult {
  double loss = 0, norm = 0;  // relative distances
  std::string worst;          // parameter
  double error = 0;           // of it: |g - g1| / |g1|; with an oracle its distance to that, over
                              // one rank's
  double loss_limit = 0, norm_limit = 0, error_limit = 0;
  bool met() const { return loss <= loss_limit && norm <= norm_limit && error <= error_limit; }
};

// `oracle`: null in f32. In exact mode, without tensor (tp, etp) and context axes, everything must
// be equal.
ParityResult compare_steps(const RunConfig& config, const ParityStep& step, const ParityStep& one,
                           const ParityStep* oracle);

}  // namespace shoestring
