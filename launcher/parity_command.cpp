#include "launcher/parity_command.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "core/counted.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/measurement.h"
#include "launcher/mesh_layout.h"
#include "launcher/parameter_counts.h"
#include "launcher/rank_state.h"

namespace shoestring {
namespace {

// What runs now, for a person who waits.
using Tell = std::function<void(std::string_view what)>;

// One rank's steps, each made once: layouts may change what does not belong to a layout too.
class References {
 public:
  const ParityStep& one(const RunConfig& config, const Tell& tell) {
    return made(one_, config, [&](const RunConfig& c) {
      tell("one rank");
      return run_parity_step(c);
    });
  }
  ParityTruth* truth(const RunConfig& config, const Tell& tell) {
    if (!needs_truth(config)) return nullptr;
    const ParityStep& step = one(config, tell);
    return &made(truths_, config, [&](const RunConfig& c) {
      tell(cat("one rank beside f64, ", least_noise_seeds, " seeds"));
      return run_truth(c, step);
    });
  }

 private:
  template <class T>
  using ByConfig = std::map<std::string, T>;
  template <class T, class F>
  static T& made(ByConfig<T>& steps, const RunConfig& config, const F& make) {
    const RunConfig alone = on_one_rank(config);
    const std::string key = dump_config(alone, false);
    const auto found = steps.find(key);
    return found != steps.end() ? found->second : steps.emplace(key, make(alone)).first->second;
  }
  ByConfig<ParityStep> one_;
  ByConfig<ParityTruth> truths_;
};

struct Row {
  std::string name;
  int64_t ranks = 1, peak = 0;
  ParityResult result = {};
  ParityStep step = {};
  std::string note = {}, failure = {};  // of a run that ended with an error: what it said
  bool met() const { return failure.empty() && result.met(); }
};

std::string short_figure(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", x);
  return text;
}

// "2.50 MiB", or "2.50 MiB of 3.00 MiB" where the latter was expected.
std::string text_of_pair(int64_t is, int64_t expected) {
  const std::string text = text_of_bytes(static_cast<double>(is));
  return is == expected ? text : cat(text, " of ", text_of_bytes(static_cast<double>(expected)));
}

std::string text_of_traffic(const Row& row) {
  std::string text;
  bool equal = true;
  for (size_t op = 0; op < num_call_ops; ++op) {
    if (row.step.sent[op] == 0 && row.step.formula[op] == 0) continue;
    equal &= row.step.sent[op] == row.step.formula[op];
    append(text, text.empty() ? "" : ", ", name_of(static_cast<Call::Op>(op)), " ",
           text_of_pair(row.step.sent[op], row.step.formula[op]));
  }
  return text.empty() || !equal ? text : text + "; by formula the same";
}

std::string text_of_memory(const Row& row) {
  std::string text;
  for (size_t kind = 0; kind < num_memory_kinds; ++kind) {
    const MemoryFigure& f = row.step.memory[kind];
    if (f.peak == 0 && f.forecast == 0) continue;
    const auto name = name_of(static_cast<MemoryKind>(kind));
    append(text, text.empty() ? "" : ", ", name, " ",
           f.band.bounded() ? text_of_pair(f.peak, f.forecast)
                            : text_of_bytes(static_cast<double>(f.peak)));
  }
  return text;
}

constexpr size_t columns = 100;     // of a line, where its words allow it
constexpr size_t widest_name = 20;  // of a layout beside its figures; longer ones stand above
// Of what belongs to a layout, and of lines that go on.
constexpr std::string_view margin = "    ", further = "      ";

std::string padded(std::string text, size_t to) {
  text.resize(std::max(text.size(), to), ' ');
  return text;
}

// Broken at blanks, as lines behind the margin.
std::string behind_margin(std::string_view text) {
  std::string lines;
  std::string_view indent = margin;
  while (!text.empty()) {
    size_t end = text.size();
    if (indent.size() + end > columns) {
      end = text.rfind(' ', columns - indent.size());
      if (end == std::string_view::npos) end = std::min(text.find(' '), text.size());
    }
    append(lines, "\n", indent, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    indent = further;
  }
  return lines;
}

std::string heading(size_t width) {
  return padded("layout", width) +
         "  ranks  loss     norm     error    memory      worst parameter";
}

// `width`: of the names' column.
std::string text_of_row(const Row& row, size_t width) {
  std::string text =
      row.name.size() <= width ? padded(row.name, width) : cat(row.name, "\n", padded("", width));
  append(text, "  ", padded(cat(row.ranks), 5), "  ");
  if (!row.failure.empty()) {
    append(text, "MISSED: the run ended with an error");
    std::istringstream lines(row.failure);
    for (std::string line; std::getline(lines, line);) append(text, behind_margin(line));
    return text;
  }
  const ParityResult& r = row.result;
  append(text, padded(short_figure(r.loss), 7), "  ", padded(short_figure(r.norm), 7), "  ",
         padded(short_figure(r.error), 7), "  ",
         padded(text_of_bytes(static_cast<double>(row.peak)), 10), "  ");
  const std::string last = cat(r.worst, r.met() ? "" : "  MISSED");
  const size_t begun = text.size() - (text.rfind('\n') + 1);
  append(text, begun + last.size() > columns ? cat("\n", margin) : "", last);
  if (!row.note.empty()) append(text, behind_margin(cat("note: ", row.note)));
  const std::string sent = text_of_traffic(row);
  if (!sent.empty()) append(text, behind_margin(cat("sent: ", sent)));
  append(text, behind_margin(cat("memory: ", text_of_memory(row))));
  for (const auto* misses : {&r.bytes, &r.memory}) {
    for (const std::string& miss : *misses) append(text, behind_margin(cat("MISSED ", miss)));
  }
  return text;
}

std::vector<Measurement> measurements_of(const std::vector<Row>& rows) {
  std::vector<Measurement> list;
  for (const Row& row : rows) {
    const auto add = [&](std::string_view what, double value, std::string unit,
                         std::optional<double> limit) {
      list.push_back({.name = cat(row.name, "/", what),
                      .value = value,
                      .unit = std::move(unit),
                      .goal = limit,
                      .at_most = true});
    };
    if (!row.failure.empty()) {
      add(cat("error/", row.failure), 1, "errors", 0);
      continue;
    }
    const ParityResult& r = row.result;
    add("loss", r.loss, "relative", r.loss_limit);
    add("gradient_norm", r.norm, "relative", r.norm_limit);
    add(cat("worst/", r.worst), r.error, "relative", r.error_limit);
    add("peak_memory", static_cast<double>(row.peak), "bytes", {});
    for (size_t op = 0; op < num_call_ops; ++op) {
      const auto name = name_of(static_cast<Call::Op>(op));
      const int64_t beside = std::abs(row.step.sent[op] - row.step.formula[op]);
      add(cat("sent/", name), static_cast<double>(row.step.sent[op]), "bytes", {});
      add(cat("sent_beside_formula/", name), static_cast<double>(beside), "bytes", 0);
    }
    for (size_t i = 0; i < num_memory_kinds; ++i) {
      const auto kind = static_cast<MemoryKind>(i);
      const MemoryFigure& f = row.step.memory[i];
      const auto peak = static_cast<double>(f.peak), forecast = static_cast<double>(f.forecast);
      const auto slack = static_cast<double>(f.band.slack);
      std::optional<double> most, least;
      if (f.band.bounded()) {
        most = std::max(f.band.most * forecast, forecast + slack);
        least = std::min(f.band.least * forecast, forecast - slack);
      }
      add(cat("memory/", name_of(kind)), peak, "bytes", most);
      if (!least) continue;
      add(cat("memory_below_forecast/", name_of(kind)), std::max(0.0, *least - peak), "bytes", 0);
    }
  }
  return list;
}

// What its run made of the layout; an error of the run is a miss, and others go on.
Row run_layout(const CheckedLayout& checked, References& references, const WrapWorld& wrap,
               const Tell& tell) {
  const RunConfig& config = checked.config;
  Row row{.name = checked.layout.name, .ranks = ranks_of(config)};
  tell(counted(row.ranks, "rank"));
  try {
    const RunConfig held = with_comparable_numbers(config);
    row.step = run_parity_step(config, wrap);
    if (held.model.moe.balance.global_batch != config.model.moe.balance.global_batch) {
      row.note =
          "numbers compared without moe.balance.global_batch, whose counts depend on the layout";
      ParityStep numbers = run_parity_step(held, wrap);
      numbers.sent = row.step.sent, numbers.formula = row.step.formula;
      numbers.memory = row.step.memory;
      row.step = std::move(numbers);
    }
    row.result =
        compare_steps(held, row.step, references.one(held, tell), references.truth(held, tell));
    for (const MemoryFigure& f : row.step.memory) row.peak += f.peak;
  } catch (const std::exception& error) {
    row.failure = error.what();
  }
  return row;
}

// "parity of a.toml: 125 k parameters, 2 layers; 14 layouts of 2 to 4 ranks, each beside one rank".
std::string text_of_task(const std::string& file, const std::vector<CheckedLayout>& layouts) {
  int64_t least = ranks_of(layouts[0].config), most = least;
  for (const CheckedLayout& checked : layouts) {
    const int64_t ranks = ranks_of(checked.config);
    least = std::min(least, ranks), most = std::max(most, ranks);
  }
  const ModelConfig model = with_vocabulary(layouts[0].config).model;
  return cat("parity of ", file, ": ", text_of_parameters(model), ", ",
             counted(model.layers, "layer"), "; ",
             counted(static_cast<int64_t>(layouts.size()), "layout"), " of ",
             least < most ? cat(least, " to ") : "", counted(most, "rank"),
             layouts.size() > 1 ? ", each beside one rank" : " beside one rank");
}

}  // namespace

bool run_parity(const ParityOptions& options, ProgressLine& progress, std::ostream& json,
                const WrapWorld& wrap) {
  const std::vector<CheckedLayout> layouts = checked_layouts(options);
  progress.line(text_of_task(options.config, layouts));
  size_t width = 6;
  for (const CheckedLayout& checked : layouts) {
    width = std::max(width, std::min(checked.layout.name.size(), widest_name));
  }
  if (!options.json) progress.line(heading(width));
  References references;
  std::vector<Row> rows;
  for (const CheckedLayout& checked : layouts) {
    const std::string place =
        cat("running ", checked.layout.name, "  ", rows.size() + 1, " of ", layouts.size(), "  ");
    const Tell tell = [&](std::string_view what) { progress.update(cat(place, what)); };
    rows.push_back(run_layout(checked, references, wrap, tell));
    if (!options.json) {
      progress.line(text_of_row(rows.back(), width));
    }
  }
  const auto missed =
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return !row.met(); });
  progress.line(
      missed == 0
          ? cat(rows.size() == 1 ? "the layout equals" : cat("all ", rows.size(), " layouts equal"),
                " one rank within the limits")
          : cat(missed, " of ", counted(static_cast<int64_t>(rows.size()), "layout"), " MISSED ",
                missed == 1 ? "its" : "their", " limits"));
  if (options.json) print_measurements(measurements_of(rows), true, json);
  return missed == 0;
}

}  // namespace shoestring
