// What a run tells of what is to come: the forecast of its memory, and, when matrices leave FP8,
// how much longer and dearer the rest becomes.

#include <algorithm>
#include <cmath>

#include "core/counted.h"
#include "core/text.h"
#include "launcher/report.h"
#include "launcher/saving.h"

namespace shoestring {
namespace {

// In as many decimals as it takes to see that the error is above the limit.
std::string text_above(double error, double limit) {
  int digits = 3;
  while (digits < 12 && text_of_fixed(error, digits) == text_of_fixed(limit, digits)) ++digits;
  return text_of_fixed(error, digits);
}

// Some names, and how many there are besides.
std::string text_of_names(const std::vector<std::string>& names) {
  constexpr size_t most = 20;
  std::string text;
  for (size_t i = 0; i < std::min(most, names.size()); ++i) {
    append(text, i == 0 ? "" : ", ", names[i]);
  }
  if (names.size() > most) append(text, " and ", names.size() - most, " more (summary.json)");
  return text;
}

}  // namespace

// The codes of weights are the only weights that are made after the start.
int64_t Reporter::weight_code_bytes() const {
  if (!rank_.fp8) return 0;
  return std::max<int64_t>(0, rank_.device.ledger().peak(MemoryKind::weights) - weight_bytes_);
}

// Of the checkpoint that is written while training goes on; the last one needs no copy.
int64_t Reporter::bytes_of_copy() const {
  const int64_t every = rank_.config.checkpoint.every;
  if (every == 0 || (rank_.step / every + 1) * every >= rank_.config.train.steps) return 0;
  return copied_bytes(content_of(rank_), checkpoint_options(rank_));
}

// The widest shape that is still to come decides, in any stage that the run reaches.
MemoryForecast Reporter::forecast_widest() const {
  const RunConfig& c = rank_.config;
  const StepShape shape = rank_.loader->schedule().at(rank_.step);
  std::vector<StepShape> shapes = {shape};
  const int64_t end = rank_.loader->schedule().at(c.train.steps).first_token;
  for (const LoadSegment& s : rank_.loader->schedule().segments()) {
    if (s.from_tokens > shape.first_token && s.from_tokens < end) {
      shapes.push_back(
          {.micro_batches = s.micro_batches, .sequences = s.sequences, .length = s.length});
    }
  }
  const int64_t copy = bytes_of_copy(), shares = rank_.part->data_ranks();
  const int world = rank_.ranks.size();
  MemoryForecast most;
  for (const StepShape& s : shapes) {
    const MemoryForecast f =
        forecast_memory(c, {.sequences = s.sequences,
                            .length = s.length,
                            .threads = rank_.device.threads(),
                            .share = share_of(c, world, rank_.ranks.rank(),
                                              most_micro_batches(s.micro_batches, shares)),
                            .checkpoint_bytes = copy,
                            .steps_done = rank_.step,
                            .fallen = fallen()});
    if (f.total() > most.total()) most = f;
  }
  return most;
}

void Reporter::print_forecast() {
  const RunConfig& c = rank_.config;
  const Ledger& ledger = rank_.device.ledger();
  const int64_t state = state_bytes_ = ledger.current_total();
  weight_bytes_ = ledger.current(MemoryKind::weights);
  const MemoryForecast most = forecast_ = forecast_widest();
  forecast_bytes_ = state + most.total();
  auto text = [](int64_t bytes) { return text_of_bytes(static_cast<double>(bytes)); };
  progress_.line(cat("memory forecast: ", text(forecast_bytes_), " a rank (state ", text(state),
                     ", activations ", text(most.activations), ", workspace ", text(most.workspace),
                     ", communication ", text(most.communication), ", checkpoint copy ",
                     text(most.checkpoint),
                     most.shared_out > 0 ? cat(", shared out ", text(most.shared_out)) : "",
                     c.precision.on() ? cat(", FP8 weights ", text(most.weight_codes)) : "", ")"));
}

// What the rest of the run costs more, on chips that multiply FP8 faster than bf16.
void Reporter::tell_fallen(const StepReport& r) {
  const CostSection& cost = rank_.config.cost;
  for (const Fp8Fallback& f : r.fallen) {
    std::string text =
        cat("step ", rank_.step, ": ", f.matrix, " falls back to ", rank_.config.train.dtype,
            ": the relative error of its ", f.product, " in FP8 is ", text_above(f.error, f.limit),
            ", above precision.watchdog.limit = ", f.limit, "; the rest of the run takes ",
            text_of_fixed(100 * f.slower, 2), " % longer where FP8 is ",
            rank_.config.precision.watchdog.chip_speedup, " times as fast");
    if (cost.price_per_hour > 0) {
      append(text, ": ", text_of_money(f.slower * money(seconds_left())), " ", cost.currency);
    }
    progress_.line(text);
  }
  if (r.fallen.empty() || rank_.step >= rank_.config.train.steps) return;
  // Values are kept where codes were; the codes of the matrices and a checkpoint's copy stay.
  MemoryForecast now = forecast_widest();
  now.weight_codes = std::max(now.weight_codes, forecast_.weight_codes);
  now.checkpoint = std::max(now.checkpoint, forecast_.checkpoint);
  const int64_t bytes = state_bytes_ + now.total();
  if (bytes <= forecast_bytes_) return;
  forecast_bytes_ = bytes;
  progress_.line(
      cat("memory forecast from here on: ", text_of_bytes(static_cast<double>(bytes)), " a rank"));
}

std::vector<std::string> Reporter::fallen() const {
  return rank_.watchdog ? rank_.watchdog->state().fallen : std::vector<std::string>();
}

void Reporter::tell_fallen_before() {
  const std::vector<std::string> names = fallen();
  if (names.empty()) return;
  progress_.line(
      cat("the watchdog has let ", names.size(), " of ",
          counted(static_cast<int64_t>(rank_.fp8->layers().size()), "matrix", "matrices"),
          " fall back to ", rank_.config.train.dtype, ": ", text_of_names(names)));
}

}  // namespace shoestring
