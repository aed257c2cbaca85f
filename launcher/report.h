#pragma once
// What a run tells: lines on the console, metrics.jsonl, TensorBoard, summary.json. Only rank 0
// reports; the other ranks' reporters do nothing.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/metrics.h"
#include "io/tensorboard.h"
#include "launcher/core_share.h"
#include "launcher/evaluate.h"
#include "launcher/memory_forecast.h"
#include "launcher/progress.h"
#include "launcher/rank_state.h"
#include "launcher/recent_speed.h"
#include "launcher/run_directory.h"
#include "launcher/step.h"

namespace shoestring {

// "12.3400"; below a thousandth two digits, so that small runs show what they cost.
std::string text_of_money(double amount);

class Reporter {
 public:
  explicit Reporter(RankState& rank);

  // After resume, on all ranks: measures the peak, opens the files behind the last saved step and
  // prints what is going to happen. What rank.owed says is missing in the last step's line can be
  // added to it from here on.
  void begin(const CoreShare& machine);
  // A step's figures; its line in the files follows with record(), after what belongs to the step.
  void step(const StepReport& report, const Batch& batch, double data_seconds, double seconds);
  void evaluation(const std::vector<SourceLoss>& losses, double seconds);
  void sample(const std::string& prompt, const std::string& text);
  void record();
  // Brings the lines written so far to the disk.
  void sync();
  void line(const std::string& text);
  // Writes summary.json and prints the closing table. When no step was trained here, the figures of
  // an earlier summary stay but for those of the evaluation.
  void finish(const std::vector<SourceLoss>& losses, const CheckpointStats& saving);

  double money(double seconds) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Closing;  // report_summary.cpp
  void measure_peak(const CoreShare& machine);
  void take_up_last_line(const RunDirectory& directory);
  void print_summary(const Closing& closing);
  bool active() const { return rank_.ranks.rank() == 0; }
  struct StepTimes {
    double data_seconds = 0, seconds = 0, flop_per_second = 0;
  };
  MetricsRecord figures(const StepReport& report, const Batch& batch, const StepTimes& times) const;
  MemoryForecast forecast_widest() const;
  void print_forecast();
  void tell_fallen(const StepReport& report);
  void tell_fallen_before();
  std::vector<std::string> fallen() const;
  int64_t bytes_of_copy() const;
  std::string summary(const Closing& closing, const CheckpointStats& saving) const;
  std::string console_text(const StepReport& report) const;
  std::string text_of_memory() const;
  int64_t weight_code_bytes() const;
  double seconds_left() const;
  double share_of_peak(double flop_per_second) const;  // MFU; 0 without a measured peak

  RankState& rank_;
  ProgressLine progress_{stdout};
  std::optional<MetricsRecord> pending_;  // of the last step
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TensorboardWriter> tensorboard_;
  bool line_exists_ = false;  // of pending_, in metrics.jsonl
  Clock::time_point loop_begin_ = Clock::now();
  double peak_flops_ = 0;  // of all cores that the ranks use, measured at start
  RecentSpeed recent_;
  int64_t state_bytes_ = 0;   // on the ledger before the first step
  int64_t weight_bytes_ = 0;  // of these, the weights: what comes later are their codes in FP8
  MemoryForecast forecast_;
  int64_t forecast_bytes_ = 0;  // the most that was told
  int64_t tokens_here_ = 0;     // trained on since this start
  double seconds_here_ = 0;
  double flop_here_ = 0;
  std::string last_sample_;
};

}  // namespace shoestring
