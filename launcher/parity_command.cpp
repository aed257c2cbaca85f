#include "launcher/parity_command.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/check.h"
#include "core/nearest_name.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "launcher/config.h"
#include "launcher/measurement.h"
#include "launcher/mesh_layout.h"
#include "launcher/plan.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

// Short names of the keys that a layout may set.
const std::map<std::string, std::string>& short_keys() {
  static const std::map<std::string, std::string> keys = {{"tp", "mesh.tp"},
                                                          {"cp", "mesh.cp"},
                                                          {"pp", "mesh.pp"},
                                                          {"ep", "mesh.ep"},
                                                          {"etp", "mesh.etp"},
                                                          {"dp", "parallel.data_parallel"},
                                                          {"dp_shard", "mesh.dp_shard"},
                                                          {"dp_replicate", "mesh.dp_replicate"},
                                                          {"order", "mesh.order"},
                                                          {"nodes_of", "mesh.ranks_per_node"},
                                                          {"schedule", "pipeline.schedule"},
                                                          {"chunks", "pipeline.chunks"},
                                                          {"layers", "pipeline.layers"},
                                                          {"zero", "parallel.zero_stage"},
                                                          {"context", "parallel.context"},
                                                          {"recompute", "train.recompute"},
                                                          {"dtype", "train.dtype"},
                                                          {"exact", "train.exact"},
                                                          {"precision", "precision.recipe"}};
  return keys;
}

std::string override_of(const std::string& word, const std::string& where) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == word.size()) {
    fail_usage(cat(where, "\"", word, "\" is not KEY=VALUE, such as tp=2"));
  }
  const std::string key = word.substr(0, equals);
  if (key.find('.') != std::string::npos) return word;
  const auto found = short_keys().find(key);
  if (found != short_keys().end()) return found->second + word.substr(equals);
  std::vector<std::string> names;
  for (const auto& [name, full] : short_keys()) names.push_back(name);
  const std::string nearest = nearest_name(key, names);
  fail_usage(cat(where, "a layout has no \"", key, "\"",
                 nearest.empty() ? "." : cat("; did you mean \"", nearest, "\"?"),
                 " Short names are tp, cp, pp, ep, dp, schedule, zero, recompute and so on; every ",
                 "other key of the config is written in full, such as train.micro_batch=2"));
}

RunConfig config_of(const ParityOptions& options, const ParityLayout& layout) {
  std::vector<std::string> overrides = options.overrides;
  overrides.insert(overrides.end(), layout.overrides.begin(), layout.overrides.end());
  RunConfig config =
      read_config<RunConfig>({options.config, overrides}, nullptr,
                             [](const RunConfig& run, Complaints& c) { run.validate_data(c); });
  config.train.measure_peak = false;
  return config;
}

std::vector<ParityLayout> layouts_of(const ParityOptions& options) {
  if (options.layouts.empty()) return {{.name = "the config's own", .overrides = {}}};
  if (options.layouts != "all") {
    return parse_layouts(read_small_file(options.layouts, 1 << 20), options.layouts);
  }
  const RunConfig config = config_of(options, {});
  return all_layouts(config, options.ranks > 0 ? options.ranks : ranks_of(config));
}

bool needs_oracle(const RunConfig& config) {
  return config.train.dtype != "f32" || config.precision.on();
}

// One rank's steps, each made once: layouts may change what does not belong to a layout too.
class References {
 public:
  const ParityStep& one(const RunConfig& config) {
    return made(one_, config, [](const RunConfig& c) { return run_parity_step(c); });
  }
  const ParityStep* oracle(const RunConfig& config) {
    return needs_oracle(config) ? &made(oracle_, config, run_oracle_step) : nullptr;
  }

 private:
  using Steps = std::map<std::string, ParityStep>;
  template <class F>
  static const ParityStep& made(Steps& steps, const RunConfig& config, const F& make) {
    const RunConfig alone = on_one_rank(config);
    const std::string key = dump_config(alone, false);
    const auto found = steps.find(key);
    return found != steps.end() ? found->second : steps.emplace(key, make(alone)).first->second;
  }
  Steps one_, oracle_;
};

struct Row {
  ParityLayout layout;
  ParityResult result;
  std::array<int64_t, num_call_ops> sent, formula;
  std::array<MemoryFigure, num_memory_kinds> memory;
  int64_t ranks = 1, peak = 0;
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
    if (row.sent[op] == 0 && row.formula[op] == 0) continue;
    equal &= row.sent[op] == row.formula[op];
    append(text, text.empty() ? "" : ", ", name_of(static_cast<Call::Op>(op)), " ",
           text_of_pair(row.sent[op], row.formula[op]));
  }
  return text.empty() || !equal ? text : text + "; by formula the same";
}

std::string text_of_memory(const Row& row) {
  std::string text;
  for (size_t kind = 0; kind < num_memory_kinds; ++kind) {
    const MemoryFigure& f = row.memory[kind];
    if (f.peak == 0 && f.forecast == 0) continue;
    const auto name = name_of(static_cast<MemoryKind>(kind));
    append(text, text.empty() ? "" : ", ", name, " ",
           f.band.bounded() ? text_of_pair(f.peak, f.forecast)
                            : text_of_bytes(static_cast<double>(f.peak)));
  }
  return text;
}

void print_table(const std::vector<Row>& rows, std::ostream& out) {
  size_t width = 6;
  for (const Row& row : rows) width = std::max(width, row.layout.name.size());
  const auto padded = [](std::string text, size_t to) {
    text.resize(std::max(text.size(), to), ' ');
    return text;
  };
  out << padded("layout", width)
      << "  ranks  loss     norm     error    memory      worst parameter\n";
  for (const Row& row : rows) {
    const ParityResult& r = row.result;
    out << padded(row.layout.name, width) << "  " << padded(cat(row.ranks), 5) << "  "
        << padded(short_figure(r.loss), 7) << "  " << padded(short_figure(r.norm), 7) << "  "
        << padded(short_figure(r.error), 7) << "  "
        << padded(text_of_bytes(static_cast<double>(row.peak)), 10) << "  " << r.worst
        << (r.met() ? "" : "  MISSED") << "\n";
    const std::string margin = padded("", width) + "  ";
    const std::string sent = text_of_traffic(row);
    if (!sent.empty()) out << margin << "sent: " << sent << "\n";
    out << margin << "memory: " << text_of_memory(row) << "\n";
    for (const auto* misses : {&r.bytes, &r.memory}) {
      for (const std::string& miss : *misses) out << margin << "MISSED " << miss << "\n";
    }
  }
}

std::vector<Measurement> measurements_of(const std::vector<Row>& rows) {
  std::vector<Measurement> list;
  for (const Row& row : rows) {
    const auto add = [&](std::string_view what, double value, std::string unit,
                         std::optional<double> limit) {
      list.push_back({.name = cat(row.layout.name, "/", what),
                      .value = value,
                      .unit = std::move(unit),
                      .goal = limit,
                      .at_most = true});
    };
    const ParityResult& r = row.result;
    add("loss", r.loss, "relative", r.loss_limit);
    add("gradient_norm", r.norm, "relative", r.norm_limit);
    add(cat("worst/", r.worst), r.error, "relative", r.error_limit);
    add("peak_memory", static_cast<double>(row.peak), "bytes", {});
    for (size_t op = 0; op < num_call_ops; ++op) {
      const auto name = name_of(static_cast<Call::Op>(op));
      const int64_t beside = std::abs(row.sent[op] - row.formula[op]);
      add(cat("sent/", name), static_cast<double>(row.sent[op]), "bytes", {});
      add(cat("sent_beside_formula/", name), static_cast<double>(beside), "bytes", 0);
    }
    for (size_t i = 0; i < num_memory_kinds; ++i) {
      const auto kind = static_cast<MemoryKind>(i);
      const MemoryFigure& f = row.memory[i];
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

}  // namespace

std::vector<ParityLayout> parse_layouts(std::string_view text, const std::string& file) {
  std::vector<ParityLayout> layouts;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    ParityLayout layout;
    for (std::string word; words >> word;) {
      append(layout.name, layout.name.empty() ? "" : " ", word);
      layout.overrides.push_back(override_of(word, cat(file, ":", number, ": ")));
    }
    if (!layout.overrides.empty()) layouts.push_back(std::move(layout));
  }
  if (layouts.empty()) {
    fail_usage(
        cat(file, " names no layout; write one a line, such as \"tp=2 pp=2 schedule=zb-v\""));
  }
  return layouts;
}

std::vector<ParityLayout> all_layouts(const RunConfig& config, int64_t ranks) {
  std::vector<ParityLayout> layouts;
  for (const MeshConfig& mesh : legal_meshes(config, ranks)) {
    ParityLayout layout;
    const auto add = [&](const char* name, int64_t size, int64_t usual) {
      if (size == usual) return;
      append(layout.name, layout.name.empty() ? "" : " ", name, "=", size);
      layout.overrides.push_back(cat("mesh.", name, "=", size));
    };
    add("tp", mesh.tp, 1);
    add("cp", mesh.cp, 1);
    add("pp", mesh.pp, 1);
    add("dp_shard", mesh.dp_shard, 1);
    add("dp_replicate", mesh.dp_replicate, 1);
    add("ep", mesh.ep, 1);
    add("etp", mesh.etp, 1);
    layout.overrides.push_back(cat("mesh.dp_shard=", mesh.dp_shard));
    layout.overrides.emplace_back("parallel.data_parallel=1");
    // Options that a layout has no use for.
    const bool routed = mesh.ep * mesh.etp > 1;
    const bool nodes = Mesh(mesh, static_cast<int>(ranks)).node_shape(MeshGroup::ep).two_levels();
    if (mesh.pp == 1 || !routed) layout.overrides.emplace_back("pipeline.overlap=false");
    if (mesh.pp == 1) layout.overrides.emplace_back("offload.activations=false");
    if (!routed || nodes) layout.overrides.emplace_back("parallel.expert_rows=exact");
    if (!nodes) layout.overrides.emplace_back("parallel.sum_in_nodes=false");
    if (layout.name.empty()) layout.name = "one rank";
    layouts.push_back(std::move(layout));
  }
  return layouts;
}

bool run_parity(const ParityOptions& options, std::ostream& out) {
  const std::vector<ParityLayout> layouts = layouts_of(options);
  std::vector<RunConfig> configs;  // all are read before the first runs
  for (const ParityLayout& layout : layouts) configs.push_back(config_of(options, layout));
  References references;
  std::vector<Row> rows;
  for (size_t i = 0; i < layouts.size(); ++i) {
    const RunConfig& config = configs[i];
    const ParityStep step = run_parity_step(config);
    Row row{
        .layout = layouts[i],
        .result = compare_steps(config, step, references.one(config), references.oracle(config)),
        .sent = step.sent,
        .formula = step.formula,
        .memory = step.memory,
        .ranks = ranks_of(config)};
    for (const MemoryFigure& f : step.memory) row.peak += f.peak;
    rows.push_back(std::move(row));
    if (!options.json) print_table({rows.back()}, out);
  }
  if (options.json) print_measurements(measurements_of(rows), true, out);
  const auto missed =
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return !row.result.met(); });
  if (!options.json) {
    out << (missed == 0 ? cat("all ", rows.size(), " layouts equal one rank within the limits")
                        : cat(missed, " of ", rows.size(), " layouts MISSED their limits"))
        << "\n";
  }
  return missed == 0;
}

}  // namespace shoestring
