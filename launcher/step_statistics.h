#pragma once
// What a step tells of itself on request (train.statistics_every): how large the output of each
// block is, and how the norm of the gradient is shared out among the classes of parameters.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/tape.h"
#include "launcher/rank_state.h"
#include "parallel/ordered_sums.h"

namespace shoestring {

class StepStatistics {
 public:
  // `step` counts from 0.
  static bool due(const RunConfig& config, int64_t step);

  explicit StepStatistics(RankState& rank);
  // Takes over what a stage's tape says of micro-batch `micro` of the step, or of this rank's part
  // of it.
  void keep(const Tape& tape, int64_t micro);
  // After the gradients were reduced; every rank calls. Names and figures of all ranks, the same on
  // each: "activation_rms/layers.0", "activation_absmax/layers.0", "gradient_norm/hidden".
  std::vector<std::pair<std::string, double>> finish() const;

 private:
  RankState& rank_;
  MicroBatchRows own_;  // three figures a block
};

}  // namespace shoestring
