#pragma once
// The launcher's own step (launcher/step.h) on a fixed batch instead of a loader's.

#include <string>
#include <vector>

#include "launcher/step.h"
#include "tests/io/store_fixture.h"

namespace shoestring {

struct StepOptions {
  ModelConfig model = {
      .layers = 12, .hidden = 512, .ffn = 1408, .heads = 8, .kv_heads = 4, .vocabulary = 8192};
  int64_t rows = 8, length = 512;  // of a random batch
  int threads = 0, warmup = 2, steps = 6;
  int ranks = 1;  // threads of this process, each with its share of the rows and cores
  bool exact = false, checked = false, profile = false, statistics = false;
  std::string weights, batch, dtype = "f32", recompute = "none";
  PrecisionConfig precision = {};
  OptimConfig optim = {};  // its defaults are the script's
};

// The rows of the file or random ones, one micro-batch a rank and accumulation step.
std::vector<MicroBatch> batch_of(const StepOptions& options);
int64_t tokens_of(const std::vector<MicroBatch>& batch);

// The run that the options describe, at a constant learning rate. Its token store, made in
// `folder`, only makes the run complete: nothing is read from it.
RunConfig config_of(const StepOptions& options, int64_t length, const ScratchFolder& folder);

// One rank of the run.
class StepTrainer {
 public:
  // Steps count from 1; those of `traced` are timed op by op.
  StepTrainer(const RunConfig& config, const StepOptions& options, TraceRange traced,
              Communicator& ranks);
  StepReport step(const std::vector<MicroBatch>& batch);
  // After the last step, on all ranks: the trace of the steps that were timed.
  void write_trace(const std::string& path) {
    trace_.at_step(trace_.range().last + 1, ranks_, path);
  }

  RankState& rank() { return rank_; }

 private:
  Communicator& ranks_;
  RunTrace trace_;
  RankState rank_;
  StepRunner runner_;
};

}  // namespace shoestring
