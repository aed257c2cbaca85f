#pragma once
// Everything one rank of a run holds, built from the config: device, data, model, optimiser and the
// sharing of gradients.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/fp8/layer.h"
#include "io/loader.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/evaluate.h"
#include "launcher/gradient_norm.h"
#include "launcher/plan.h"
#include "launcher/run_config.h"
#include "launcher/watchdog.h"
#include "optim/ema.h"
#include "optim/optimizer.h"
#include "optim/outlier.h"
#include "parallel/communicator.h"
#include "parallel/mesh_step.h"

namespace shoestring {

// Exact mode rests on products that do not depend on how many rows they have: a fault that says so
// where `independent` finds that they do. Asked only in exact mode.
void require_exact_products(const RunConfig& config, const std::function<bool()>& independent);

// How data ranks share gradients and the optimiser's state.
DataParallelConfig sharing_of(const RunConfig& config);

// Throws what building the RankStates of `ranks` threads would throw because config, stores,
// tokenizer and machine do not fit, at the cost of opening the files.
void check_inputs(const RunConfig& config, int ranks);
// The config with the vocabulary of its stores, which it may leave open.
RunConfig with_vocabulary(RunConfig config);

struct RankState {
  // `threads`: cores of this rank; `ranks_here`: how many share this machine's memory. Fails with a
  // usage or data error before any memory is spent on the model when config, stores and tokenizer
  // do not fit together, or the run does not fit the machine.
  RankState(const RunConfig& config, Communicator& ranks, int threads, int ranks_here = 1);

  RunConfig config;  // with the vocabulary, what the recipe says, and pipeline.layers if measured
  Communicator& ranks;
  Device device;
  Stream compute, communication;
  std::unique_ptr<Device> host;    // what is offloaded lies there; null: nothing is
  std::unique_ptr<Stream> copies;  // there and back
  std::optional<Tokenizer> tokenizer;
  std::vector<int32_t> token_bytes;
  std::unique_ptr<Loader> loader;
  std::string tokenizer_hash;            // of the stores
  std::vector<std::string> store_marks;  // of the sources: equal where they hold the same text
  int64_t token_ids = 0;                 // that the stores may hold: the vocabulary without padding
  std::unique_ptr<ModelPart> part;       // which part of the model is here, and who has the others
  std::unique_ptr<ParamStore> store;
  std::unique_ptr<Fp8Plan> fp8;           // null without precision.recipe
  std::unique_ptr<Fp8Watchdog> watchdog;  // ditto
  // Of a checkpoint, what is of no matrix that the recipe names now; the next ones keep it.
  Fp8Watchdog::State watchdog_rest = {};
  ExpertLoads loads;  // of the global-batch loss, where the model has one
  std::unique_ptr<StepGradients> gradients;
  std::unique_ptr<MeshStep> mesh;
  std::unique_ptr<GradientNorm> norm;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<WeightAverage> ema;  // null without optim.ema_decay
  StepGuard guard;
  SchedulePlan schedule;
  std::string split_text = {};  // on the first rank, where the split of the blocks was measured

  int64_t step = 0;     // steps done
  int64_t updates = 0;  // of them, not skipped
  // What belongs behind the last step and was not done because the run was to stop: saved with the
  // state, and the first thing that the next start does.
  struct Owed {
    bool evaluation = false, sample = false;
  } owed;

  // Wall clock of the run over all its starts, in seconds: what is paid for.
  double seconds() const;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  double seconds_before = 0;  // of earlier starts

  double lr_at(int64_t step) const;
  StageEffect stage_at(int64_t step) const;
  // Makes the compute copies of the owned masters again, with the random bits of the last update
  // where that rounded stochastically, and publishes them: after masters were replaced.
  void refresh_copies();
  // Evaluates with all ranks, in the micro-batches' own order.
  Evaluator evaluator();
  // Begins the weight average anew from the present masters; nothing without optim.ema_decay.
  void start_average();
  // After this rank's masters changed: every rank gets what its forward pass reads.
  void publish_weights();

 private:
  Device& state_device() { return config.offload.optimizer ? *host : device; }
  void split_by_cost();
};

}  // namespace shoestring
