#pragma once
// The loop over steps of one rank: batches in, steps done, lines and files out, state saved.

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "io/checkpoint.h"
#include "io/durable_file.h"
#include "launcher/rank_state.h"
#include "launcher/report.h"
#include "launcher/step.h"
#include "launcher/stop_check.h"

namespace shoestring {

class WholeModel;  // launcher/whole_model.h

class Trainer {
 public:
  // Resumes when run.directory holds a checkpoint; otherwise begins with fresh weights or those of
  // train.init_from.
  Trainer(RankState& rank, RunTrace& trace, const CoreShare& machine = {});
  // Trains until train.steps or until a stop signal. Returns false when it was stopped early; the
  // state is saved in both cases.
  // `begun` is called when there are steps to save from now on.
  bool run(const std::function<void()>& begun = {});

 private:
  void begin();
  void begin_from(const std::string& path);
  void keep_inputs() const;
  void tell_changes(const Checkpoint& checkpoint);
  // False when the step was abandoned because the run is to stop.
  bool do_step();
  bool do_step_or_keep();
  void after_step();
  int64_t step_on_disk();
  void save_if_due(bool last);
  std::vector<SourceLoss> evaluate();
  void require_finite(const std::vector<SourceLoss>& losses);
  RankState::Owed due() const;
  void evaluate_if_owed();
  void sample_if_owed();
  void with_average(const std::function<void()>& judge);
  void sample(WholeModel& whole);
  void trace_at(int64_t step);
  void announce_stage(int64_t step);
  void apply_stage(int64_t step);
  Batch next_batch();

  RankState& rank_;
  RunTrace& trace_;
  CoreShare machine_;
  StopCheck stop_;
  std::optional<DurableFile> lock_;  // of the run's directory, held by rank 0
  StepRunner runner_;
  CheckpointWriter writer_;
  Reporter reporter_;
  // With when a thread made it.
  struct MadeBatch {
    Batch batch;
    std::chrono::steady_clock::time_point begin, end;
  };
  std::future<MadeBatch> prefetched_;
  std::vector<SourceLoss> final_losses_;
  int64_t saved_step_ = -1;
  int64_t proven_step_ = -1;  // whose weights gave a finite loss
};

}  // namespace shoestring
