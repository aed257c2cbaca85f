#include "launcher/report.h"

#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "core/check.h"
#include "core/peak.h"
#include "core/text.h"
#include "launcher/memory_forecast.h"
#include "launcher/run_directory.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

double wall_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string fixed(double value, int digits) {
  std::string text(64, '\0');
  text.resize(static_cast<size_t>(std::snprintf(text.data(), text.size(), "%.*f", digits, value)));
  return text;
}

int64_t resident_peak_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

EvalSums total_of(const std::vector<SourceLoss>& losses) {
  EvalSums sums;
  for (const SourceLoss& s : losses) sums.add(s.sums);
  return sums;
}

}  // namespace

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
  }
  return text;
}

void Reporter::begin() {
  if (!active()) return;
  const RunConfig& c = rank_.config;
  const RunDirectory directory(c.run.directory);
  metrics_ = std::make_unique<MetricsWriter>(directory.metrics(), rank_.step > 0 ? rank_.step : -1);
  tensorboard_ = std::make_unique<TensorboardWriter>(directory.tensorboard());
  if (c.train.measure_peak) {
    Device apart(DeviceKind::cpu, 0, rank_.device.threads());  // not in the run's ledger
    peak_flops_ = measured_peak_flops(apart, dtype_from_name(c.train.dtype)) * rank_.ranks.size();
  }
  const StepShape shape = rank_.loader->schedule().at(rank_.step);
  progress_.line(cat("model: ", text_of_count(static_cast<double>(rank_.store->parameters())),
                     " parameters, ", c.train.dtype, ", ", c.model.layers, " layers, hidden ",
                     c.model.hidden, ", vocabulary ", c.model.vocabulary));
  progress_.line(cat("batch: ", shape.samples(), " sequences of ", shape.length, " tokens, ",
                     shape.micro_batches, " micro-batches on ", rank_.ranks.size(), " rank",
                     rank_.ranks.size() == 1 ? "" : "s"));
  print_forecast(shape);
  progress_.line(cat(rank_.step > 0 ? cat("resuming after step ", rank_.step) : "training", ": ",
                     c.train.steps - rank_.step, " steps in ", c.run.directory));
}

// The widest shape that is still to come decides.
void Reporter::print_forecast(const StepShape& shape) {
  const RunConfig& c = rank_.config;
  std::vector<StepShape> shapes = {shape};
  for (const LoadSegment& s : rank_.loader->schedule().segments()) {
    if (s.from_tokens > shape.first_token) {
      shapes.push_back({.sequences = s.sequences, .length = s.length});
    }
  }
  MemoryForecast most;
  for (const StepShape& s : shapes) {
    const MemoryForecast f = forecast_memory(c, {.sequences = s.sequences,
                                                 .length = s.length,
                                                 .threads = rank_.device.threads(),
                                                 .ranks = rank_.ranks.size(),
                                                 .gradient_elements = rank_.store->elements()});
    if (f.total() > most.total()) most = f;
  }
  const int64_t state = rank_.device.ledger().current_total();
  forecast_bytes_ = state + most.total();
  auto text = [](int64_t bytes) { return text_of_bytes(static_cast<double>(bytes)); };
  progress_.line(cat("memory forecast: ", text(forecast_bytes_), " a rank (state ", text(state),
                     ", activations ", text(most.activations), ", workspace ", text(most.workspace),
                     ", communication ", text(most.communication), ")"));
}

double Reporter::seconds_left() const {
  const BatchSchedule& schedule = rank_.loader->schedule();
  const int64_t done = schedule.at(rank_.step).first_token;
  const int64_t all = schedule.at(rank_.config.train.steps).first_token;
  return tokens_here_ == 0
             ? NAN
             : seconds_here_ / static_cast<double>(tokens_here_) * static_cast<double>(all - done);
}

double Reporter::flop_per_second() const {
  return seconds_here_ > 0 ? flop_here_ / seconds_here_ : 0;
}

std::string Reporter::console_text(const StepReport& r, const Batch& batch) const {
  const RunConfig& c = rank_.config;
  const double rate = static_cast<double>(batch.global_tokens) / smooth_seconds_;
  std::string text =
      cat("step ", rank_.step, "/", c.train.steps, "  loss ", fixed(r.loss, 4), "  norm ",
          fixed(r.gradient_norm, 3), "  ", text_of_count(rate), " tokens/s");
  if (peak_flops_ > 0) {
    append(text, "  MFU ", fixed(100 * flop_per_second() / peak_flops_, 1), "%");
  }
  if (c.cost.price_per_hour > 0) {
    append(text, "  ", fixed(money(rank_.seconds), 4), " of ",
           fixed(money(rank_.seconds + seconds_left()), 4), " ", c.cost.currency);
  }
  append(text, "  left ", text_of_seconds(seconds_left()));
  return text;
}

void Reporter::step(const StepReport& r, const Batch& batch, double data_seconds, double seconds) {
  rank_.seconds += seconds;
  if (!active()) return;
  const int64_t length = batch.micro.empty() ? 0 : batch.micro[0].length;
  tokens_here_ += batch.global_tokens;
  seconds_here_ += seconds;
  flop_here_ += static_cast<double>(batch.global_tokens) *
                training_flop_per_token(rank_.config.model, length);
  smooth_seconds_ = smooth_seconds_ == 0 ? seconds : 0.9 * smooth_seconds_ + 0.1 * seconds;
  if (r.skipped) progress_.line(cat("step ", rank_.step, " skipped: ", r.skip_reason));
  pending_ = figures(r, batch, data_seconds, seconds);
  const std::string text = console_text(r, batch);
  const int64_t every = rank_.config.train.log_every;
  if (every > 0 && (rank_.step % every == 0 || rank_.step == rank_.config.train.steps)) {
    progress_.line(text);
  } else {
    progress_.update(text);
  }
}

MetricsRecord Reporter::figures(const StepReport& r, const Batch& batch, double data_seconds,
                                double seconds) const {
  MetricsRecord m;
  const double rate = static_cast<double>(batch.global_tokens) / seconds;
  m.set("step", rank_.step);
  m.set("loss", r.loss);
  m.set("tokens", rank_.loader->schedule().at(rank_.step).first_token);
  m.set("gradient_norm", r.gradient_norm);
  m.set("lr", r.lr);
  m.set("accuracy", r.accuracy);
  if (rank_.config.train.z_loss > 0) m.set("z_loss", r.penalty);
  m.set("tokens_per_second", rate);
  m.set("mfu", peak_flops_ > 0 ? flop_per_second() / peak_flops_ : 0.0);
  m.set("seconds", seconds);
  m.set("data_seconds", data_seconds);
  m.set("compute_seconds", r.compute_seconds);
  m.set("exposed_seconds", r.exposed_seconds);
  m.set("update_seconds", r.update_seconds);
  m.set("skipped", rank_.guard.skipped());
  const Ledger& ledger = rank_.device.ledger();
  for (int k = 0; k < num_memory_kinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    m.set(cat("bytes/", name_of(kind)), ledger.peak(kind));
  }
  m.set("cost", money(rank_.seconds));
  m.set("cost_at_end", money(rank_.seconds + seconds_left()));
  return m;
}

void Reporter::record() {
  if (!active() || !pending_) return;
  metrics_->write(*pending_);
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

void Reporter::evaluation(const std::vector<SourceLoss>& losses, double seconds) {
  if (!active() || losses.empty()) return;
  std::string text = cat("validation after step ", rank_.step, ":");
  MetricsRecord unused;
  MetricsRecord& record = pending_ ? *pending_ : unused;
  const EvalSums all = total_of(losses);
  record.set("validation_loss", all.mean());
  if (all.bytes > 0) record.set("bits_per_byte", all.bits_per_byte());
  for (const SourceLoss& s : losses) {
    append(text, losses.size() > 1 ? cat("  ", s.name) : "", "  loss ", fixed(s.sums.mean(), 4));
    if (s.sums.bytes > 0) append(text, " (", fixed(s.sums.bits_per_byte(), 4), " bits per byte)");
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

std::string Reporter::summary(const std::vector<SourceLoss>& losses,
                              const CheckpointStats& saving) const {
  const RunConfig& c = rank_.config;
  const EvalSums sums = total_of(losses);
  const int64_t length = rank_.loader->schedule().at(rank_.step).length;
  const nlohmann::json none;  // null: not known
  auto known = [&](bool is, auto value) { return is ? nlohmann::json(value()) : none; };
  nlohmann::ordered_json s;
  s["steps"] = rank_.step;
  s["tokens"] = rank_.loader->schedule().at(rank_.step).first_token;
  s["parameters"] = rank_.store->parameters();
  s["validation_loss"] = known(sums.labels > 0, [&] { return sums.mean(); });
  s["bits_per_byte"] = known(sums.bytes > 0, [&] { return sums.bits_per_byte(); });
  s["unigram_loss"] = known(sums.labels > 0, [&] {
    return unigram_loss(*rank_.loader, rank_.token_ids, c.train.evaluate_sequences, length,
                        int64_t{20} << 20);
  });
  s["uniform_loss"] = std::log(static_cast<double>(rank_.token_ids));
  s["tokens_per_second"] =
      seconds_here_ > 0 ? static_cast<double>(tokens_here_) / seconds_here_ : 0.0;
  s["flop_per_second"] = flop_per_second();
  s["peak_flop_per_second"] = peak_flops_;
  s["mfu"] = peak_flops_ > 0 ? flop_per_second() / peak_flops_ : 0.0;
  s["peak_bytes"] = resident_peak_bytes();
  s["ledger_peak_bytes"] = rank_.device.ledger().peak_total();
  s["ledger_forecast_bytes"] = forecast_bytes_;
  s["skipped_steps"] = rank_.guard.skipped();
  s["checkpoint_saves"] = saving.saves;
  s["checkpoint_bytes"] = saving.bytes;
  s["checkpoint_stall_seconds"] = saving.stall_seconds;
  s["checkpoint_write_seconds"] = saving.write_seconds;
  s["training_seconds_here"] = seconds_here_;  // since this start: what the stall compares with
  s["cost"] = money(rank_.seconds);
  s["price_per_hour"] = c.cost.price_per_hour * static_cast<double>(c.cost.chips);
  s["currency"] = c.cost.currency;
  s["seconds"] = rank_.seconds;
  for (const SourceLoss& l : losses) {
    s["sources"][l.name] = {
        {"validation_loss", l.sums.mean()},
        {"bits_per_byte", known(l.sums.bytes > 0, [&] { return l.sums.bits_per_byte(); })},
        {"labels", l.sums.labels}};
  }
  s["sample"] = last_sample_.empty() ? none : nlohmann::json(last_sample_);
  s["run_directory"] = c.run.directory;
  // A sample cut inside a character is shown with the replacement character.
  return s.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The facts of the summary, for people.
void Reporter::print_summary(const std::vector<SourceLoss>& losses) {
  const RunConfig& c = rank_.config;
  const EvalSums sums = total_of(losses);
  if (sums.labels > 0) {
    const int64_t length = rank_.loader->schedule().at(rank_.step).length;
    const double unigram = unigram_loss(*rank_.loader, rank_.token_ids, c.train.evaluate_sequences,
                                        length, int64_t{20} << 20);
    progress_.line(cat("validation loss  ", fixed(sums.mean(), 4),
                       " nats a token; a unigram model ", fixed(unigram, 4), ", a uniform one ",
                       fixed(std::log(static_cast<double>(rank_.token_ids)), 4)));
  }
  if (!last_sample_.empty()) progress_.line(cat("sample           ", last_sample_));
  if (seconds_here_ > 0) {
    progress_.line(
        cat("speed            ", text_of_count(static_cast<double>(tokens_here_) / seconds_here_),
            " tokens/s, ", fixed(flop_per_second() / 1e9, 1), " GFLOP/s",
            peak_flops_ > 0 ? cat(", MFU ", fixed(100 * flop_per_second() / peak_flops_, 1),
                                  "% of the measured peak")
                            : ""));
  }
  if (c.cost.price_per_hour > 0) {
    progress_.line(cat("cost             ", fixed(money(rank_.seconds), 4), " ", c.cost.currency,
                       " at ", c.cost.price_per_hour * static_cast<double>(c.cost.chips), " ",
                       c.cost.currency, " an hour for ", text_of_seconds(rank_.seconds)));
  }
  progress_.line(cat("run              ", c.run.directory));
}

void Reporter::finish(const std::vector<SourceLoss>& losses, const CheckpointStats& saving) {
  if (!active()) return;
  RunDirectory(rank_.config.run.directory).write_text("summary.json", summary(losses, saving));
  print_summary(losses);
  const auto peak = static_cast<double>(rank_.device.ledger().peak_total());
  progress_.line(cat("memory peak: ", text_of_bytes(peak), " a rank (", text_of_memory(),
                     "); forecast ", text_of_bytes(static_cast<double>(forecast_bytes_)),
                     "; process ", text_of_bytes(static_cast<double>(resident_peak_bytes()))));
}

}  // namespace shoestring
