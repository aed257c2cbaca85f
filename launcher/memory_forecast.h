#pragma once
// What a step will hold at its worst moment, from the config alone, for the line at the start of a
// run and for refusing a run that cannot fit. A test holds it against the ledger's peak.

#include <cstdint>
#include <string>
#include <vector>

#include "io/batch_schedule.h"
#include "launcher/rank_share.h"
#include "launcher/run_config.h"

namespace shoestring {

// Whole micro-batches, and what of them and of the model one rank has.
struct ForecastInput {
  int64_t sequences = 0, length = 0;
  int threads = 1;
  RankShare share = {};                  // without a program: all of the model, on one rank
  int64_t checkpoint_bytes = 0;          // of the copy that is written while training goes on
  int64_t steps_done = 0;                // the watchdog of FP8 may compare in the later ones
  std::vector<std::string> fallen = {};  // matrices that have left FP8
};

// Bytes beside the state (weights, gradients, moments) that a rank holds from its start.
struct MemoryForecast {
  int64_t activations = 0;    // saved for the backward pass, and the gradients on their way
  int64_t workspace = 0;      // inside the op that runs at that moment: logits, attention's panels
  int64_t communication = 0;  // staging of a bucket's reduction
  int64_t checkpoint = 0;     // the copy; kept from its first use on
  int64_t weight_codes = 0;   // of an FP8 recipe; kept from the first step on
  int64_t shared_out = 0;     // ZeRO: gradients of a micro-batch and weights while they are whole
  int64_t total() const {
    return activations + workspace + communication + checkpoint + weight_codes + shared_out;
  }
  // Each kind at its own worst moment, which these are not together; `activations` above has
  // `data` with it.
  struct Peaks {
    int64_t activations = 0, workspace = 0, communication = 0, data = 0;
  } peaks = {};
};
MemoryForecast forecast_memory(const RunConfig& config, const ForecastInput& input);

// Where a run will work: data ranks of the whole run, and all ranks on this machine.
struct MachineShare {
  int ranks = 1, ranks_here = 1, threads = 1;
  int world = 0;  // ranks of all axes; 0: data ranks alone
  int64_t memory_bytes = 0;
};
// Usage error when the run needs more memory than the machine has: weights, gradients, moments, the
// batch of the step and the one made ahead, and the step at its worst moment, in the widest
// segment. To be asked before any of it is allocated; a system that overcommits would grant it and
// end the process later; and again when an open split of the pipeline (split_is_open()) is known,
// because before that only what any split needs counts. `config` has its vocabulary.
void require_memory(const RunConfig& config, const std::vector<LoadSegment>& segments,
                    const MachineShare& machine);

// Physical memory, or the limit of the control group (a container) where that is lower.
int64_t memory_of_machine();

}  // namespace shoestring
