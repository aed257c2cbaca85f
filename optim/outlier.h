#pragma once
// Steps whose loss or gradient norm stands out from the last ones (loss spikes): z-scores over a
// sliding window, and the decision to skip.
//
// The rule. The window holds the steps that were taken: a skipped one stays out of it, so that a
// spike does not widen the deviation that judges the next. At most `skip.limit` steps in a row are
// skipped. If the next one stands out as well, the level itself has changed: it and those behind it
// are taken until one no longer stands out, by when the window has followed (with all but k of n
// values at the old level the new one scores sqrt((n - k) / k)). Then the count begins anew. What
// is not finite is never taken.

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

  // Deviations of `value` above the mean of the window; nullopt until the window is full; 0 where
  // all its values are equal; infinity for a value that is not finite.
  std::optional<double> score(double value) const;
  // Takes a value into the window, in place of the oldest one; not one that is not finite.
  void take(double value);

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

  // For checkpoints: one flat list of numbers. A list of another make is a data error; one without
  // the count of the row (written before there was a limit) begins with an empty row.
  std::vector<double> state() const;
  void restore(std::span<const double> saved);

 private:
  SkipConfig config_;
  OutlierDetector losses_, norms_;
  int64_t skipped_ = 0;
  int64_t row_ = 0;  // steps in a row, up to the last one, that stood out; at most skip.limit
};

}  // namespace shoestring
