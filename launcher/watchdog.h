#pragma once
// The watchdog of FP8 (precision.watchdog): every so many steps the products of the step's first
// micro-batch are also made in train.dtype from the same operands. What is found goes into the
// metrics; a matrix whose error stays beyond the limit falls back to train.dtype for the rest of
// the run, on all ranks alike. Which fell back, and how often the others failed, is part of the
// state.

#include <string>
#include <vector>

#include "core/fp8/layer.h"
#include "core/model/parameters.h"
#include "io/metrics.h"
#include "parallel/communicator.h"

namespace shoestring {

// A matrix that fell back, and what that costs on chips that multiply FP8 faster.
struct Fp8Fallback {
  std::string matrix, product;  // of the largest error
  double error = 0, limit = 0;
  double slower = 0;  // share by which a step takes longer, of what it takes now
};

class Fp8Watchdog {
 public:
  Fp8Watchdog(const WatchdogConfig& config, const ModelConfig& model, Fp8Plan& plan);

  // `step` counts from 0. The micro-batch with global number 0 is probed, wherever its parts are,
  // and, where experts of several data ranks meet, each rank's first one.
  bool due(int64_t step) const;
  Fp8Probe& probe() { return probe_; }  // empty at the begin of a step
  // After the backward pass, on every rank: takes the largest error of any rank's part of a matrix
  // and lets fall what is to fall. The figures for the metrics: "fp8/error/MATRIX/PRODUCT"
  // (relative) of all matrices and, of those on this rank, "fp8/saturated/...", "fp8/flushed/..."
  // (shares of both operands' values), "fp8/amax/..." (tiles by the exponent of their largest
  // value,
  // "-3:12 -2:4"; "-inf:1" are tiles of zeros).
  MetricsRecord finish(Communicator& ranks, Stream& stream, std::vector<Fp8Fallback>& fallen);

  // Comparisons in a row that a matrix failed; what a checkpoint keeps. The same on all ranks.
  struct State {
    std::vector<std::string> fallen;
    std::vector<std::pair<std::string, int64_t>> strikes;
  };
  State state() const;
  // Gives back what is of no matrix of the plan: the recipe may have changed, and change again.
  State restore(const State& state);

 private:
  // A matrix of the whole model that the recipe names.
  struct Watched {
    ParamInfo info;
    const Param* here = nullptr;  // this rank's part of it
    int64_t strikes = 0;
    bool fell = false;
  };
  double slowdown_of(const ParamInfo& info) const;
  void fall(Watched& matrix);

  WatchdogConfig config_;
  ModelConfig model_;
  Fp8Plan& plan_;
  Fp8Probe probe_;
  std::vector<Watched> matrices_;
};

}  // namespace shoestring
