#pragma once
// One rank's training step on a fixed batch, put together from the same parts as the launcher's.

#include <memory>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "optim/optimizer.h"
#include "parallel/data_parallel.h"
#include "tests/bench/step/op_times.h"

namespace shoestring {

struct StepOptions {
  ModelConfig model = {
      .layers = 12, .hidden = 512, .ffn = 1408, .heads = 8, .kv_heads = 4, .vocabulary = 8192};
  int64_t rows = 8, length = 512;  // of a random batch
  int threads = 0, warmup = 2, steps = 6;
  int ranks = 1;  // threads of this process, each with its share of the rows and cores
  bool exact = false, checked = false, profile = false;
  std::string weights, batch, dtype = "f32", recompute = "none";
  OptimConfig optim = {};  // its defaults are the script's
};

// The rows of the file or random ones, one micro-batch a rank and accumulation step.
std::vector<MicroBatch> batch_of(const StepOptions& options);

class StepTrainer {
 public:
  StepTrainer(const StepOptions& options, const std::vector<MicroBatch>& batch,
              Communicator& ranks);

  struct Outcome {
    double loss = 0, norm = 0;
  };
  Outcome step(int64_t number);  // from 1

  int64_t tokens() const;  // of all ranks
  double flop() const;
  const ParamStore& store() const { return store_; }
  const Ledger& ledger() { return device_.ledger(); }
  int threads() const { return device_.threads(); }
  OpTimes& ops() { return ops_; }

 private:
  double accumulate(int64_t labels);
  double run(const MicroBatch& micro, int64_t labels);

  const StepOptions& options_;
  const std::vector<MicroBatch>& batch_;
  Communicator& ranks_;
  Device device_;
  Stream compute_, communication_;
  ModelConfig model_config_;
  ParamStore store_;
  Transformer model_;
  DataParallel parallel_;
  FlatRange all_;
  Optimizer optimizer_;
  OpTimes ops_;
};

}  // namespace shoestring
