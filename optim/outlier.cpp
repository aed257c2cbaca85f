#include "optim/outlier.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

OutlierDetector::OutlierDetector(int64_t window) : window_(static_cast<size_t>(window)) {
  if (window < 2) fail_usage(cat("optim.skip.window must be at least 2, not ", window));
  values_.reserve(window_);
}

std::optional<double> OutlierDetector::score(double value) const {
  if (values_.size() < window_) return std::nullopt;
  if (!std::isfinite(value)) return std::numeric_limits<double>::infinity();
  // Two passes from the oldest value on: running sums would drift, and differ after a resume.
  const double n = static_cast<double>(window_);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < window_; ++i) sum += values_[(oldest_ + i) % window_];
  const double mean = sum / n;
  for (size_t i = 0; i < window_; ++i) {
    const double difference = values_[(oldest_ + i) % window_] - mean;
    squares += difference * difference;
  }
  return squares > 0 ? (value - mean) / std::sqrt(squares / n) : 0.0;
}

void OutlierDetector::take(double value) {
  if (!std::isfinite(value)) return;
  if (values_.size() < window_) return values_.push_back(value);
  values_[oldest_] = value;
  oldest_ = (oldest_ + 1) % window_;
}

std::vector<double> OutlierDetector::state() const {
  std::vector<double> list;
  for (size_t i = 0; i < values_.size(); ++i) {
    list.push_back(values_[(oldest_ + i) % values_.size()]);
  }
  return list;
}

void OutlierDetector::restore(std::span<const double> saved) {
  if (saved.size() > window_) saved = saved.last(window_);
  values_.assign(saved.begin(), saved.end());
  oldest_ = 0;
}

StepGuard::StepGuard(const SkipConfig& config)
    : config_(config), losses_(config.window), norms_(config.window) {}

StepGuard::Verdict StepGuard::judge(double loss, double norm) {
  Verdict verdict{.loss_z = losses_.score(loss), .norm_z = norms_.score(norm)};
  auto look = [&](std::string_view what, double value, const std::optional<double>& z,
                  double limit) {
    if (limit <= 0 || !z || *z <= limit) return;
    append(verdict.reason, verdict.reason.empty() ? "" : "; ", what, " ", value, " lies ", *z,
           " deviations above the last ", config_.window, " steps (limit ", limit, ")");
  };
  look("loss", loss, verdict.loss_z, config_.loss_z);
  look("gradient norm", norm, verdict.norm_z, config_.norm_z);
  const bool finite = std::isfinite(loss) && std::isfinite(norm);
  const bool stands_out = !verdict.reason.empty();
  verdict.skip = stands_out && (row_ < config_.limit || !finite);
  if (verdict.skip) {
    ++skipped_;
  } else {
    losses_.take(loss);
    norms_.take(norm);
    verdict.reason.clear();
  }
  row_ = stands_out ? std::min(row_ + 1, config_.limit) : 0;
  return verdict;
}

// [skipped, number of losses, losses..., norms..., row]; there are as many norms as losses.
std::vector<double> StepGuard::state() const {
  const std::vector<double> losses = losses_.state(), norms = norms_.state();
  std::vector<double> list = {static_cast<double>(skipped_), static_cast<double>(losses.size())};
  list.insert(list.end(), losses.begin(), losses.end());
  list.insert(list.end(), norms.begin(), norms.end());
  list.push_back(static_cast<double>(row_));
  return list;
}

void StepGuard::restore(std::span<const double> saved) {
  const double room = (static_cast<double>(saved.size()) - 2) / 2;
  const bool ok = room >= 0 && saved[0] >= 0 && saved[1] == std::floor(room) && saved[1] >= 0;
  const size_t losses = ok ? static_cast<size_t>(saved[1]) : 0;
  const bool has_row = saved.size() == 3 + 2 * losses;
  if (!ok || (has_row && !(saved.back() >= 0))) {
    fail_data(cat("the state of the outlier detector (", saved.size(),
                  " numbers) does not add up; the checkpoint is damaged"));
  }
  skipped_ = static_cast<int64_t>(saved[0]);
  losses_.restore(saved.subspan(2, losses));
  norms_.restore(saved.subspan(2 + losses, losses));
  row_ = has_row ? static_cast<int64_t>(std::min(saved.back(), 1e9)) : 0;
}

}  // namespace shoestring
