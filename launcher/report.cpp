#include "launcher/report.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/peak.h"
#include "core/text.h"
#include "launcher/config_warnings.h"
#include "launcher/layout_text.h"
#include "launcher/parameter_counts.h"
#include "launcher/run_history.h"
#include "launcher/step_flop.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

double wall_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string text_of_money(double amount) {
  if (!(amount > 0 && amount < 1e-3)) return text_of_fixed(amount, 4);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2g", amount);
  return text.data();
}

Reporter::Reporter(RankState& rank) : rank_(rank) {}

double Reporter::money(double seconds) const {
  const CostSection& cost = rank_.config.cost;
  return seconds / 3600 * cost.price_per_hour * static_cast<double>(cost.chips);
}

std::string Reporter::text_of_memory() const {
  const Ledger& ledger = rank_.device.ledger();
  std::string text;
  for (int k = 0; k < num_memory_kinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    if (ledger.peak(kind) == 0) continue;
    append(text, text.empty() ? "" : ", ", name_of(kind), " ",
           text_of_bytes(static_cast<double>(ledger.peak(kind))));
    if (kind == MemoryKind::weights && weight_code_bytes() > 0) {
      append(text, " of which FP8 codes ", text_of_bytes(static_cast<double>(weight_code_bytes())));
    }
  }
  return text;
}

void Reporter::measure_peak(const CoreShare& machine) {
  const TrainSection& t = rank_.config.train;
  if (!t.measure_peak) return;
  std::vector<double> peak{0};
  if (machine.first) {
    const int cores = machine.cores > 0 ? machine.cores : rank_.device.threads();
    // A rank that is bound to some of them measures those and stands for the others.
    const int measured = std::min(cores, machine.own_cores > 0 ? machine.own_cores : cores);
    Device apart(DeviceKind::cpu, 0, measured);  // not in the run's ledger
    peak[0] = measured_peak_flops(apart, dtype_from_name(t.dtype)) * cores / measured;
  }
  rank_.ranks.all_reduce(buffer_of(std::span(peak)), Reduce::sum, rank_.communication);
  const Awaiting waits("speed of all ranks");
  rank_.communication.synchronize();
  peak_flops_ = peak[0];
}

// The line of the step that something is owed to. The writer has cut off what was behind it.
void Reporter::take_up_last_line(const RunDirectory& directory) {
  const auto last = last_metrics(directory);
  if (!last) return;
  const RankState::Owed& owed = rank_.owed;
  if (!owed.evaluation && !owed.sample) return;
  if (number_in(*last, "step", -1) != static_cast<double>(rank_.step)) return;
  pending_ = *last;
  if (owed.evaluation) pending_ = without(*pending_, {"validation_loss", "bits_per_byte"});
  if (owed.sample) pending_ = without(*pending_, {"sample"});
  line_exists_ = true;
}

void Reporter::begin(const CoreShare& machine) {
  measure_peak(machine);
  loop_begin_ = Clock::now();
  if (!active()) return;
  const RunConfig& c = rank_.config;
  const RunDirectory directory(c.run.directory);
  // What was paid for behind the last checkpoint was paid nevertheless.
  rank_.seconds_before = std::max(rank_.seconds_before, seconds_so_far(directory));
  metrics_ = std::make_unique<MetricsWriter>(directory.metrics(), rank_.step > 0 ? rank_.step : -1);
  if (const std::string& steps = metrics_->missing(); !steps.empty()) {
    log_warning(cat(directory.metrics(), " lacks the lines of steps ", steps, " of the ",
                    rank_.step,
                    " done: the run goes on without them; to have them, stop it and put back a "
                    "copy of the file that holds them"));
  }
  take_up_last_line(directory);
  tensorboard_ = std::make_unique<TensorboardWriter>(directory.tensorboard(),
                                                     rank_.step > 0 ? rank_.step + 1 : 0);
  const StepShape shape = rank_.loader->schedule().at(rank_.step);
  progress_.line(cat("model: ", text_of_parameters(c.model), ", ", c.train.dtype, ", ",
                     counted(c.model.layers, "layer"), ", hidden ", c.model.hidden, ", vocabulary ",
                     c.model.vocabulary));
  progress_.line(cat("batch: ", counted(shape.samples(), "sequence"), " of ", shape.length,
                     " tokens, ", counted(shape.micro_batches, "micro-batch", "micro-batches"),
                     " on ", counted(rank_.ranks.size(), "rank"), " of ",
                     counted(rank_.device.threads(), "thread")));
  if (rank_.ranks.size() > 1) {
    std::istringstream layout(layout_text(c, rank_.ranks.size(), false));
    for (std::string line; std::getline(layout, line);) progress_.line(line);
  }
  if (!rank_.split_text.empty()) {
    progress_.line(cat("stages by measured cost: ", rank_.split_text));
  }
  print_forecast();
  if (!c.run.name.empty()) progress_.line(cat("run: ", c.run.name));
  progress_.line(cat(rank_.step > 0 ? cat("resuming after step ", rank_.step) : "training", ": ",
                     counted(c.train.steps - rank_.step, "step"), " in ", c.run.directory));
  tell_fallen_before();
}

double Reporter::seconds_left() const {
  const BatchSchedule& schedule = rank_.loader->schedule();
  const int64_t done = schedule.at(rank_.step).first_token;
  const int64_t all = schedule.at(rank_.config.train.steps).first_token;
  if (tokens_here_ == 0) return NAN;
  // With evaluations, samples and saving, as they came along so far.
  const double passed = std::chrono::duration<double>(Clock::now() - loop_begin_).count();
  return passed / static_cast<double>(tokens_here_) * static_cast<double>(all - done);
}

double Reporter::share_of_peak(double flop_per_second) const {
  return peak_flops_ > 0 ? flop_per_second / peak_flops_ : 0.0;
}

std::string Reporter::console_text(const StepReport& r) const {
  const RunConfig& c = rank_.config;
  std::string text =
      cat("step ", rank_.step, "/", c.train.steps, "  loss ", text_of_fixed(r.loss, 4), "  norm ",
          text_of_fixed(r.gradient_norm, 3), "  ", text_of_count(recent_.tokens_per_second()),
          " tokens/s  left ", text_of_seconds(seconds_left()));
  if (any_sparse_layer(c.model)) append(text, "  MaxVio ", text_of_fixed(r.max_vio, 2));
  if (c.model.moe.capacity > 0) append(text, "  dropped ", text_of_count(r.dropped));
  // What a narrow terminal does without stands last.
  if (peak_flops_ > 0) {
    append(text, "  MFU ", text_of_fixed(100 * share_of_peak(recent_.flop_per_second()), 1), "%");
  }
  if (c.cost.price_per_hour > 0) {
    append(text, "  ", text_of_money(money(rank_.seconds())), " of ",
           text_of_money(money(rank_.seconds() + seconds_left())), " ", c.cost.currency);
  }
  return text;
}

void Reporter::step(const StepReport& r, const Batch& batch, double data_seconds, double seconds) {
  if (!active()) return;
  const double flop = training_flop(rank_.config.model, batch.global_tokens, r.attended_pairs);
  tokens_here_ += batch.global_tokens;
  seconds_here_ += seconds;
  flop_here_ += flop;
  recent_.add({static_cast<double>(batch.global_tokens), flop, seconds});
  tell_fallen(r);
  if (r.skipped) progress_.line(cat("step ", rank_.step, " skipped: ", r.skip_reason));
  pending_ = figures(r, batch, {data_seconds, seconds, flop / seconds});
  const std::string text = console_text(r);
  const int64_t every = rank_.config.train.log_every;
  if (every > 0 && (rank_.step % every == 0 || rank_.step == rank_.config.train.steps)) {
    progress_.line(text);
  } else {
    progress_.update(text);
  }
}

MetricsRecord Reporter::figures(const StepReport& r, const Batch& batch,
                                const StepTimes& times) const {
  MetricsRecord m;
  m.set("step", rank_.step);
  m.set("loss", r.loss);
  m.set("tokens", rank_.loader->schedule().at(rank_.step).first_token);
  m.set("gradient_norm", r.gradient_norm);
  m.set("lr", r.lr);
  m.set("accuracy", r.accuracy);
  if (rank_.config.train.z_loss > 0) m.set("z_loss", r.penalty);
  m.set("tokens_per_second", static_cast<double>(batch.global_tokens) / times.seconds);
  m.set("mfu", share_of_peak(times.flop_per_second));
  m.set("seconds", times.seconds);
  m.set("data_seconds", times.data_seconds);
  m.set("compute_seconds", r.compute_seconds);
  m.set("reduction_seconds", r.reduction_seconds);
  m.set("exposed_seconds", r.exposed_seconds);
  m.set("update_seconds", r.update_seconds);
  m.set("skipped", rank_.guard.skipped());
  const Ledger& ledger = rank_.device.ledger();
  for (int k = 0; k < num_memory_kinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    m.set(cat("bytes/", name_of(kind)), ledger.peak(kind));
  }
  if (rank_.fp8) m.set("bytes/fp8_weight_codes", weight_code_bytes());
  for (int k = 0; rank_.host && k < num_memory_kinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    const int64_t peak = rank_.host->ledger().peak(kind);
    if (peak > 0) m.set(cat("bytes/host/", name_of(kind)), peak);
  }
  m.set("bytes/reserved", static_cast<int64_t>(rank_.device.pool().reserved_bytes()));
  for (const auto& [name, value] : r.statistics) m.set(name, value);
  for (const auto& [name, value] : r.watchdog.items()) {
    std::visit([&, n = &name](const auto& x) { m.set(*n, x); }, value);
  }
  if (!r.fallen.empty()) {
    double slower = 0;
    std::string names;
    for (const Fp8Fallback& f : r.fallen) {
      slower += f.slower;
      append(names, names.empty() ? "" : " ", f.matrix);
    }
    m.set("fp8/fell_back", names);
    m.set("fp8/fallback_slower", slower);
    m.set("fp8/fallback_cost", slower * money(seconds_left()));
  }
  return m;
}

void Reporter::record() {
  if (!active() || !pending_) return;
  if (line_exists_) {  // what was owed is in it now
    const RunDirectory directory(rank_.config.run.directory);
    metrics_ = std::make_unique<MetricsWriter>(directory.metrics(), rank_.step - 1, &*pending_);
    line_exists_ = false;
  } else {  // with what came behind the step
    const double wall = rank_.seconds();
    pending_->set("wall_seconds", wall);
    pending_->set("cost", money(wall));
    pending_->set("cost_at_end", money(wall + seconds_left()));
    metrics_->write(*pending_);
  }
  const double now = wall_now();
  for (const auto& [name, value] : pending_->items()) {
    if (const double* x = std::get_if<double>(&value)) {
      tensorboard_->scalar(name, *x, rank_.step, now);
    } else if (const int64_t* n = std::get_if<int64_t>(&value)) {
      tensorboard_->scalar(name, static_cast<double>(*n), rank_.step, now);
    }
  }
  pending_.reset();
}

void Reporter::sync() {
  if (metrics_) metrics_->sync();
}

void Reporter::evaluation(const std::vector<SourceLoss>& losses, double seconds) {
  if (!active() || losses.empty()) return;
  std::string text = cat("validation after step ", rank_.step, ":");
  MetricsRecord unused;
  MetricsRecord& record = pending_ ? *pending_ : unused;
  const EvalSums all = total_of_sources(losses);
  record.set("validation_loss", all.mean());
  if (all.bytes > 0) record.set("bits_per_byte", all.bits_per_byte());
  for (const SourceLoss& s : losses) {
    append(text, losses.size() > 1 ? cat("  ", s.name) : "", "  loss ",
           text_of_fixed(s.sums.mean(), 4));
    if (s.sums.bytes > 0)
      append(text, " (", text_of_fixed(s.sums.bits_per_byte(), 4), " bits per byte)");
    record.set(cat("validation_loss/", s.name), s.sums.mean());
  }
  append(text, "  in ", text_of_seconds(seconds));
  progress_.line(text);
}

void Reporter::sample(const std::string& prompt, const std::string& text) {
  if (!active()) return;
  if (pending_) pending_->set("sample", prompt + text);
  last_sample_ = prompt + text;
  progress_.line(cat("sample after step ", rank_.step, ": ", prompt, "|", text));
}

void Reporter::line(const std::string& text) {
  if (active()) progress_.line(text);
}

}  // namespace shoestring
