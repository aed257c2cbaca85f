#pragma once
// What a step tells of itself on request (train.statistics_every): how large the output of each
// block is, and how the norm of the gradient is shared out among the classes of parameters.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/tape.h"
#include "launcher/rank_state.h"

namespace shoestring {

class StepStatistics {
 public:
  // `step` counts from 0.
  static bool due(const RunConfig& config, int64_t step);

  explicit StepStatistics(RankState& rank) : rank_(rank) {}
  // Takes over what the tape of one of this rank's micro-batches says; they come in order.
  void keep(const Tape& tape);
  // After the gradients were reduced; every rank calls. Names and figures of all ranks, the same on
  // each: "activation_rms/layers.0", "activation_absmax/layers.0", "gradient_norm/hidden".
  std::vector<std::pair<std::string, double>> finish(int64_t micro_batches) const;

 private:
  RankState& rank_;
  std::vector<double> own_;  // of this rank's micro-batches, three figures a block
};

}  // namespace shoestring
