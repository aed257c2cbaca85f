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

  // `step` counts from 0. The micro-batch with global number 0 is probed, on rank 0.
  bool due(int64_t step) const;
  // Compares while it lives.
  class Probing {
   public:
    Probing(Fp8Plan* plan, Fp8Probe* probe) : plan_(plan), probe_(probe) {
      if (plan_) plan_->set_probe(probe);
    }
    ~Probing() {
      if (plan_) plan_->set_probe(nullptr);
    }
    void end_forward() const {
      if (probe_) probe_->end_forward();
    }
    Probing(const Probing&) = delete;
    Probing& operator=(const Probing&) = delete;

   private:
    Fp8Plan* plan_;
    Fp8Probe* probe_;
  };
  Fp8Probe& begin() { return probe_ = Fp8Probe(); }
  // After the backward pass, on every rank: takes rank 0's figures and lets fall what is to fall.
  // The figures for the metrics are rank 0's: "fp8/error/MATRIX/PRODUCT" (relative),
  // "fp8/saturated/...", "fp8/flushed/..." (shares of both operands' values), "fp8/amax/..." (tiles
  // by the exponent of their largest value, "-3:12 -2:4"; "-inf:1" are tiles of zeros).
  MetricsRecord finish(Communicator& ranks, Stream& stream, std::vector<Fp8Fallback>& fallen);

  // Comparisons in a row that a matrix failed, by its place in the plan; what a checkpoint keeps.
  struct State {
    std::vector<std::string> fallen;
    std::vector<std::pair<std::string, int64_t>> strikes;
  };
  State state() const;
  // Gives back what is of no matrix of the plan: the recipe may have changed, and change again.
  State restore(const State& state);

 private:
  double slowdown_of(const Param& param) const;

  WatchdogConfig config_;
  ModelConfig model_;
  Fp8Plan& plan_;
  Fp8Probe probe_;
  std::vector<int64_t> strikes_;  // by the place in plan.layers()
};

}  // namespace shoestring
