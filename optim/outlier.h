#pragma once
// Steps whose loss or gradient norm stands out from the last ones (loss spikes): z-scores over a
// sliding window, and the decision to skip.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optim/config.h"

namespace shoestring {

// Mean and deviation of the last `window` values. Says nothing until the window is full.
class OutlierDetector {
 public:
  explicit OutlierDetector(int64_t window);

  // Deviations of `value` above the mean of the window before it, then takes it into the window;
  // nullopt until the window is full; 0 where all its values are equal. Values that are not finite
  // score infinity and stay out of the window.
  std::optional<double> score(double value);

  // For checkpoints: the window, oldest first.
  std::vector<double> state() const;
  // Takes the newest values when `saved` is longer than the window.
  void restore(std::span<const double> saved);

 private:
  size_t window_;
  std::vector<double> values_;  // a ring once it is full
  size_t oldest_ = 0;
};

// Judges a step before its update. Every rank must pass the same numbers (global loss and norm).
class StepGuard {
 public:
  explicit StepGuard(const SkipConfig& config);

  struct Verdict {
    bool skip = false;
    std::optional<double> loss_z = {}, norm_z = {};
    std::string reason = {};  // for the log, empty unless skip
  };
  Verdict judge(double loss, double norm);
  int64_t skipped() const { return skipped_; }

  // For checkpoints: one flat list of numbers. A list of another make is a data error.
  std::vector<double> state() const;
  void restore(std::span<const double> saved);

 private:
  SkipConfig config_;
  OutlierDetector losses_, norms_;
  int64_t skipped_ = 0;
};

}  // namespace shoestring
