#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

// 1 at x = 0, `low` at x = 1.
double cosine(double x, double low) {
  return low + 0.5 * (1 + std::cos(std::numbers::pi * x)) * (1 - low);
}

double position(double at, double begin, double end) {
  return end > begin ? std::clamp((at - begin) / (end - begin), 0.0, 1.0)
                     : (at < begin ? 0.0 : 1.0);
}

double wsd(const ScheduleConfig& config, double at) {
  const double x = position(at, 1 - config.decay_fraction, 1);
  const double fall = config.decay_shape == "sqrt" ? std::sqrt(x) : x;
  return config.min_ratio + (1 - fall) * (1 - config.min_ratio);
}

double multi_step(const ScheduleConfig& config, double at) {
  double factor = 1;
  for (size_t i = 0; i < config.milestones.size(); ++i) {
    if (at >= config.milestones[i]) factor *= config.factors.at(i);
  }
  return factor;
}

double deepseek_v3(const ScheduleConfig& config, double at) {
  if (at >= config.final_from) return config.final_ratio;
  return cosine(position(at, config.flat_until, config.decay_until), config.min_ratio);
}

}  // namespace

double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t tokens,
                       const SchedulePlan& plan) {
  const double at = static_cast<double>(config.drive == "tokens" ? tokens : step);
  const double total = static_cast<double>(plan.total), warmup = static_cast<double>(plan.warmup);
  if (at < warmup) {
    const bool steps = config.warmup_steps > 0;
    const double length = steps ? static_cast<double>(config.warmup_steps) : warmup;
    const int64_t reached = steps ? step + 1 : tokens + plan.unit;
    return std::min(1.0, static_cast<double>(reached) / length);
  }
  if (config.kind == "constant") return 1;
  // Cosine and linear start where the warm-up ends; the others are laid over the whole run.
  const double after = position(at, warmup, total);
  const double overall = position(at, 0, total);
  if (config.kind == "linear") return 1 - after * (1 - config.min_ratio);
  if (config.kind == "cosine") return cosine(after, config.min_ratio);
  if (config.kind == "wsd") return wsd(config, overall);
  if (config.kind == "multi_step") return multi_step(config, overall);
  if (config.kind == "deepseek_v3") return deepseek_v3(config, overall);
  fail_usage(cat("optim.schedule.kind '", config.kind,
                 "' is unknown; choose constant, linear, cosine, wsd, multi_step or deepseek_v3"));
}

double learning_rate(const OptimConfig& config, int64_t step, int64_t tokens,
                     const SchedulePlan& plan) {
  return config.lr * schedule_factor(config.schedule, step, tokens, plan);
}

}  // namespace shoestring
