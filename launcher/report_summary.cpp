// The end of a run's report: summary.json and the closing table.

#include <sys/resource.h>

#include <cmath>

#include "core/text.h"
#include "launcher/parameter_counts.h"
#include "launcher/report.h"
#include "launcher/run_history.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr int64_t most_counted = int64_t{20} << 20;  // training tokens for the unigram guess

int64_t resident_peak_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

nlohmann::ordered_json known(bool is, double value) {
  return is ? nlohmann::ordered_json(value) : nlohmann::ordered_json();  // null: not known
}

// Null unless the earlier summary has a number there.
nlohmann::ordered_json number_of(const nlohmann::ordered_json& summary, const char* key) {
  const bool is = summary.is_object() && summary.contains(key) && summary[key].is_number();
  return is ? summary[key] : nlohmann::ordered_json();
}

std::vector<std::string> next_commands(const std::string& directory) {
  return {cat("shoestring generate --model ", directory, " --prompt TEXT"),
          cat("shoestring eval --model ", directory, " FILE")};
}

// Null unless it is above 0.
nlohmann::ordered_json positive(double value) { return known(value > 0, value); }

}  // namespace

// What file and table share.
struct Reporter::Closing {
  const std::vector<SourceLoss>& losses;
  EvalSums sums = total_of_sources(losses);
  double unigram = 0;
  double wall = 0;
  // Tokens/s, FLOP/s, peak and MFU of the last start that trained.
  nlohmann::ordered_json former = {}, rate = {}, flop = {}, peak = {}, mfu = {};

  // The figures of an earlier summary, if it is of these steps.
  void take_former(int64_t steps) {
    if (!former.is_object() || number_of(former, "steps") != steps) former = nullptr;
    rate = number_of(former, "tokens_per_second");
    flop = number_of(former, "flop_per_second");
    peak = number_of(former, "peak_flop_per_second");
    mfu = number_of(former, "mfu");
  }
  // Of a start that trained to the end and was stopped before it could sum up, the last line tells.
  void take_line(const MetricsRecord& line, double peak_flops) {
    const double share = number_in(line, "mfu", 0);
    rate = positive(number_in(line, "tokens_per_second", 0));
    mfu = positive(share);
    peak = positive(peak_flops);
    flop = positive(share * peak_flops);
  }
};

std::string Reporter::summary(const Closing& closing, const CheckpointStats& saving) const {
  const RunConfig& c = rank_.config;
  const EvalSums& sums = closing.sums;
  const bool trained = tokens_here_ > 0 || !closing.former.is_object();
  nlohmann::ordered_json s = trained ? nlohmann::ordered_json::object() : closing.former;
  s["steps"] = rank_.step;
  s["tokens"] = rank_.loader->schedule().at(rank_.step).first_token;
  const ParameterCounts counts = parameter_counts(c.model);  // of all ranks
  s["parameters"] = static_cast<int64_t>(counts.total + counts.prediction);
  s["validation_loss"] = known(sums.labels > 0, sums.mean());
  s["bits_per_byte"] = known(sums.bytes > 0, sums.bits_per_byte());
  s["unigram_loss"] = known(sums.labels > 0, closing.unigram);
  s["uniform_loss"] = std::log(static_cast<double>(rank_.token_ids));
  s["tokens_per_second"] = closing.rate;
  s["flop_per_second"] = closing.flop;
  s["peak_flop_per_second"] = closing.peak;
  s["mfu"] = closing.mfu;
  if (trained) {
    s["peak_bytes"] = resident_peak_bytes();
    s["ledger_peak_bytes"] = rank_.device.ledger().peak_total();
    s["ledger_forecast_bytes"] = forecast_bytes_;
    s["skipped_steps"] = rank_.guard.skipped();
    if (rank_.fp8) {
      s["fp8_weight_code_bytes"] = weight_code_bytes();
      s["fp8_matrices"] = rank_.fp8->layers().size();
      s["fp8_fallen"] = fallen();
    }
    s["checkpoint_saves"] = saving.saves;
    s["checkpoint_bytes"] = saving.bytes;
    s["checkpoint_stall_seconds"] = saving.stall_seconds;
    s["checkpoint_write_seconds"] = saving.write_seconds;
    s["training_seconds_here"] = seconds_here_;  // of this start: what the stall compares with
  }
  s["cost"] = money(closing.wall);
  s["price_per_hour"] = c.cost.price_per_hour * static_cast<double>(c.cost.chips);
  s["currency"] = c.cost.currency;
  s["seconds"] = closing.wall;
  for (const SourceLoss& l : closing.losses) {
    s["sources"][l.name] = {{"validation_loss", l.sums.mean()},
                            {"bits_per_byte", known(l.sums.bytes > 0, l.sums.bits_per_byte())},
                            {"labels", l.sums.labels}};
  }
  if (trained || !last_sample_.empty()) {
    s["sample"] =
        last_sample_.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(last_sample_);
  }
  s["run_directory"] = c.run.directory;
  s["next"] = next_commands(c.run.directory);
  s["name"] = c.run.name;
  // A sample cut inside a character is shown with the replacement character.
  return s.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The facts of the summary, for people.
void Reporter::print_summary(const Closing& closing) {
  const RunConfig& c = rank_.config;
  if (closing.sums.labels > 0) {
    progress_.line(cat("validation loss  ", text_of_fixed(closing.sums.mean(), 4),
                       " nats a token; a unigram model ", text_of_fixed(closing.unigram, 4),
                       ", a uniform one ",
                       text_of_fixed(std::log(static_cast<double>(rank_.token_ids)), 4)));
  }
  if (!last_sample_.empty()) progress_.line(cat("sample           ", last_sample_));
  if (closing.rate.is_number() && closing.flop.is_number()) {
    const bool with_peak = closing.mfu.is_number() && closing.mfu.get<double>() > 0;
    progress_.line(cat(
        "speed            ", text_of_count(closing.rate.get<double>()), " tokens/s, ",
        text_of_fixed(closing.flop.get<double>() / 1e9, 1), " GFLOP/s",
        with_peak
            ? cat(", MFU ", text_of_fixed(100 * closing.mfu.get<double>(), 1),
                  "% of the measured peak",
                  closing.mfu.get<double>() > 1 ? ", which was measured while other work ran" : "")
            : ""));
  }
  if (c.cost.price_per_hour > 0) {
    progress_.line(cat("cost             ", text_of_money(money(closing.wall)), " ",
                       c.cost.currency, " at ",
                       c.cost.price_per_hour * static_cast<double>(c.cost.chips), " ",
                       c.cost.currency, " an hour for ", text_of_seconds(closing.wall)));
  }
  progress_.line(cat("run              ", c.run.directory));
  std::string next;
  for (const std::string& command : next_commands(c.run.directory)) {
    append(next, next.empty() ? "" : "; ", command);
  }
  progress_.line(cat("next             ", next));
}

void Reporter::finish(const std::vector<SourceLoss>& losses, const CheckpointStats& saving) {
  if (!active()) return;
  const RunDirectory directory(rank_.config.run.directory);
  Closing closing{.losses = losses, .wall = rank_.seconds()};
  if (closing.sums.labels > 0) {
    const int64_t length = rank_.loader->schedule().at(std::max<int64_t>(rank_.step - 1, 0)).length;
    closing.unigram = unigram_loss(*rank_.loader, rank_.token_ids,
                                   rank_.config.train.evaluate_sequences, length, most_counted);
  }
  if (tokens_here_ > 0) {
    closing.rate = static_cast<double>(tokens_here_) / seconds_here_;
    closing.flop = flop_here_ / seconds_here_;
    closing.peak = positive(peak_flops_);
    closing.mfu = positive(share_of_peak(flop_here_ / seconds_here_));
  } else {
    if (const auto text = directory.read_text("summary.json")) {
      closing.former = nlohmann::ordered_json::parse(*text, nullptr, false);
    }
    closing.take_former(rank_.step);
    if (const auto line = last_metrics(directory); line && !closing.former.is_object()) {
      closing.take_line(*line, peak_flops_);
    }
  }
  directory.write_text("summary.json", summary(closing, saving));
  print_summary(closing);
  const auto peak = static_cast<double>(rank_.device.ledger().peak_total());
  progress_.line(cat("memory peak: ", text_of_bytes(peak), " a rank (", text_of_memory(),
                     "); forecast ", text_of_bytes(static_cast<double>(forecast_bytes_)),
                     "; process ", text_of_bytes(static_cast<double>(resident_peak_bytes()))));
}

}  // namespace shoestring
