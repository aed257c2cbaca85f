#pragma once
// One optimiser step of one rank: forward and backward of its micro-batches, reduction, norm, clip,
// update. The page to read first.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "core/check.h"
#include "core/layers/context.h"
#include "launcher/rank_state.h"
#include "launcher/run_trace.h"
#include "launcher/step_routing.h"
#include "launcher/step_statistics.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {

struct StepReport {
  double loss = 0;     // mean cross-entropy over the step's valid labels, in nats
  double penalty = 0;  // mean z-loss, its coefficient included
  double accuracy = 0;
  double attended_pairs = 0;  // that attention computed, over all ranks
  double gradient_norm = 0;
  double lr = 0;
  bool skipped = false;     // an outlier: masters and moments are untouched
  std::string skip_reason;  // "loss 9.1 is 7.2 deviations above the mean of 128 steps"
  bool abandoned = false;   // the run is to stop: as if the step had never begun
  double compute_seconds = 0, update_seconds = 0;
  double reduction_seconds = 0, exposed_seconds = 0;  // of sharing gradients: all, and not hidden
  // Of prediction modules with labels ("mtp/loss_1", per label of the main loss, "mtp/agreement_1")
  // and of sparse layers (step_routing.h); step_statistics.h, when due.
  std::vector<std::pair<std::string, double>> statistics = {};
  double max_vio = 0;                    // of the worst sparse layer
  double dropped = 0;                    // choices beyond the experts' capacity
  MetricsRecord watchdog = {};           // watchdog.h, when due
  std::vector<Fp8Fallback> fallen = {};  // matrices that left FP8
};

// A loss or gradient that is not finite. The same weights and batch give it again.
class StepNotFinite : public Error {
 public:
  explicit StepNotFinite(std::string message)
      : Error(std::move(message), ExitCode::fault, no_place) {}
};

class StepRunner {
 public:
  StepRunner(RankState& rank, RunTrace& trace);
  ~StepRunner();

  // Raises rank.step, and rank.updates unless the step is skipped. A loss or gradient that is not
  // finite is a StepNotFinite that names rank, step, tensor and sample ids; nothing is updated.
  // Between micro-batches, on all ranks alike, `stop` is asked whether to abandon the step: nothing
  // but the gradient store has changed then, which every step begins by clearing.
  using Stop = std::function<bool()>;
  StepReport run(const Batch& batch, const Stop& stop = {});

 private:
  class Span;
  // Forward and backward. False: abandoned.
  bool accumulate(const Batch& batch, const Stop& stop);
  // What is told of the micro-batches on their way.
  MeshStep::Hooks hooks(const Batch& batch);
  void begin(const Batch& batch, const Instruction& instruction, size_t slot);
  void end(const Batch& batch, const Instruction& instruction, size_t slot);
  void keep(const Batch& batch, const Tape& tape, size_t slot, const StageResult* result);
  // {loss, penalty, correct, attended pairs} of the step, and of each prediction module {loss,
  // labels, agreements}.
  std::vector<double> losses_of(const Batch& batch);
  void check_loss(const Batch& batch, size_t slot, int64_t first_not_finite, double sum) const;
  bool probes(const Batch& batch, size_t slot) const;
  double gradient_norm(const Batch& batch) const;
  [[noreturn]] void fail_gradient(const Batch& batch) const;
  void update(const StepReport& report);

  RankState& rank_;
  RunTrace& trace_;
  StepRouting routing_;
  // Of the step in progress.
  std::optional<StepStatistics> statistics_;  // when due
};

}  // namespace shoestring
