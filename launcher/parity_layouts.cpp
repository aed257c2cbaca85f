#include "launcher/parity_layouts.h"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "core/check.h"
#include "core/counted.h"
#include "core/nearest_name.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "launcher/config.h"
#include "launcher/config_complaints.h"
#include "launcher/mesh_layout.h"
#include "launcher/rank_state.h"
#include "parallel/comm/rank_environment.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

constexpr int64_t most_threads = 1024;

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

struct Word {
  std::string text;
  size_t column = 1;
};

// Parted by blanks outside of brackets, up to a `#`.
std::vector<Word> words_of(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<Word> words;
  bool inside = false;
  int depth = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const bool blank = c == ' ' || c == '\t' || c == '\r';
    if (!blank && !inside) words.push_back({.text = "", .column = i + 1});
    if (c == '[') ++depth;
    if (c == ']') --depth;
    inside = !blank || (inside && depth > 0);
    if (inside && !blank) words.back().text += c;
  }
  return words;
}

bool has_comma_outside_brackets(std::string_view text) {
  int depth = 0;
  for (const char c : text) {
    if (c == '"' || c == '\'') return false;
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c == ',' && depth == 0) return true;
  }
  return false;
}

// What is wrong with a word, or its assignment.
struct ReadWord {
  std::string override, error;
};

ReadWord read_word(const std::string& word) {
  if (has_comma_outside_brackets(word)) {
    return {.override = "",
            .error = cat("\"", word, "\" has a comma; assignments are parted by blanks, as in ",
                         "\"tp=2 pp=2\", and commas stand in lists alone, as in layers=[1,3]")};
  }
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == word.size()) {
    return {.override = "", .error = cat("\"", word, "\" is not KEY=VALUE, such as tp=2")};
  }
  const std::string key = word.substr(0, equals);
  if (key.find('.') != std::string::npos) return {.override = word, .error = ""};
  const auto found = short_keys().find(key);
  if (found != short_keys().end()) {
    return {.override = found->second + word.substr(equals), .error = ""};
  }
  std::vector<std::string> names;
  for (const auto& [name, full] : short_keys()) names.push_back(name);
  const std::string nearest = nearest_name(key, names);
  return {.override = "",
          .error = cat("a layout has no \"", key, "\"",
                       nearest.empty() ? "." : cat("; did you mean \"", nearest, "\"?"),
                       " Short names are tp, cp, pp, ep, dp, schedule, zero, recompute and so on; ",
                       "every other key of the config is written in full, such as ",
                       "train.micro_batch=2")};
}

std::string key_of(const std::string& assignment) {
  return assignment.substr(0, assignment.find('='));
}

RunConfig config_of(const ParityOptions& options, const ParityLayout& layout) {
  std::vector<std::string> overrides = options.overrides;
  overrides.insert(overrides.end(), layout.overrides.begin(), layout.overrides.end());
  RunConfig config =
      read_config<RunConfig>({options.config, overrides},
                             [](const RunConfig& run, Complaints& c) { run.validate_data(c); });
  config.train.measure_peak = false;
  return config;
}

// The position of the layout's word that the text names first, else of its first one.
std::string place_of(const ParityLayout& layout, std::string_view text) {
  if (layout.places.empty()) return "";
  size_t best = 0, first = std::string_view::npos;
  for (size_t i = 0; i < layout.places.size(); ++i) {
    const std::string key = key_of(layout.overrides[i]);
    if (!names_key(text, key) || text.find(key) >= first) continue;
    best = i;
    first = text.find(key);
  }
  return layout.places[best] + ": ";
}

// What a config's error says, with positions in the file of layouts in place of "--set #3".
std::string complaint_of(const ParityLayout& layout, size_t before, std::string message) {
  if (layout.places.empty()) return message;
  if (message.starts_with("the configuration has ")) message.erase(0, message.find('\n') + 1);
  std::string text;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    const bool placed = line.starts_with("--set #");
    for (size_t i = layout.places.size(); i-- > 0;) {  // #12 before #1
      const std::string set = cat("--set #", before + i + 1);
      for (size_t at = 0; (at = line.find(set, at)) != std::string::npos;) {
        line.replace(at, set.size(), layout.places[i]);
        at += layout.places[i].size();
      }
    }
    if (!placed && text.empty()) line = place_of(layout, message) + line;
    append(text, text.empty() ? "" : "\n", line);
  }
  return text;
}

// Is the layout possible, and is there something to compare?
void require_layout(const ParityLayout& layout, const RunConfig& config) {
  const int64_t ranks = ranks_of(config);
  if (ranks == 1) {
    const bool experts = config.mesh.ep * config.mesh.etp > 1, named = !layout.places.empty();
    fail_usage(cat(named ? "the layout" : layout.name,
                   " amounts to one rank, which leaves nothing to compare; ",
                   experts ? "ep and etp share out the ranks of other axes and add none: name one "
                             "of these beside them, such as "
                           : "name an axis, such as ",
                   experts ? (named ? "dp=" : "--set parallel.data_parallel=")
                           : (named ? "tp=" : "--set mesh.tp="),
                   experts ? config.mesh.ep * config.mesh.etp : 2));
  }
  if (ranks > most_threads) {
    fail_usage(cat("the layout asks for ", ranks, " ranks, but parity runs them as threads, at ",
                   "most ", most_threads));
  }
  check_inputs(config, static_cast<int>(ranks));
}

std::vector<ParityLayout> layouts_of(const ParityOptions& options) {
  if (options.layouts.empty()) {
    return {{.name = "the config's own", .overrides = {}, .places = {}, .mistakes = {}}};
  }
  if (options.layouts != "all") {
    return parse_layouts(read_small_file(options.layouts, 1 << 20), options.layouts);
  }
  const RunConfig config = config_of(options, {});
  const int64_t ranks = options.ranks > 0 ? options.ranks : ranks_of(config);
  if (ranks == 1) {
    fail_usage("--layouts all has one rank, which leaves nothing to compare; add --ranks N");
  }
  return all_layouts(config, ranks);
}

// With every size of every axis to go through, one that is set has no effect.
void refuse_axes(const ParityOptions& options) {
  for (const std::string& set : options.overrides) {
    const std::string key = key_of(set);
    // mesh.pp says of which layouts pipeline.layers is.
    const bool axis = key.starts_with("mesh.") && key != "mesh.order" && key != "mesh.pp" &&
                      key != "mesh.ranks_per_node";
    if (!axis && key != "parallel.data_parallel") continue;
    fail_usage(cat("--set ", set, " has no effect with --layouts all --ranks ", options.ranks,
                   ", which goes through every size of every axis; leave it out, or write the "
                   "layouts wanted into a file and give that to --layouts"));
  }
}

void require_sense(const ParityOptions& options) {
  if (options.ranks > 0 && options.layouts != "all") {
    fail_usage(cat("--ranks ", options.ranks, " is the number of threads for --layouts all; ",
                   options.layouts.empty()
                       ? "add that, or name axes instead, such as --set mesh.tp=2"
                       : "the layouts of a file name their own: leave --ranks out"));
  }
  if (options.ranks > 0) refuse_axes(options);
  const auto place = rank_place();
  if (place && place->size > 1) {
    fail_usage(cat("parity runs its ranks as threads of one process, but ", place->size,
                   " processes were started; start it without mpirun or srun"));
  }
}

[[noreturn]] void refuse(const std::vector<std::string>& complaints) {
  std::string text;
  for (const std::string& c : complaints) append(text, text.empty() ? "" : "\n", c);
  if (complaints.size() > 1) text = "the layouts have mistakes\n" + text;
  fail_usage(std::move(text));
}

}  // namespace

std::vector<ParityLayout> parse_layouts(std::string_view text, const std::string& file) {
  std::vector<ParityLayout> layouts;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    ParityLayout layout;
    for (const Word& word : words_of(line)) {
      const std::string place = cat(file, ":", number, ":", word.column);
      ReadWord read = read_word(word.text);
      const std::string key = key_of(read.override);
      if (std::ranges::any_of(layout.overrides,
                              [&](const std::string& o) { return key_of(o) == key; })) {
        read.error = cat(key, " is set twice on this line; leave one out");
      }
      if (!read.error.empty()) {
        layout.mistakes.push_back(cat(place, ": ", read.error));
        continue;
      }
      append(layout.name, layout.name.empty() ? "" : " ", word.text);
      layout.overrides.push_back(read.override);
      layout.places.push_back(place);
    }
    if (!layout.overrides.empty() || !layout.mistakes.empty()) {
      layouts.push_back(std::move(layout));
    }
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
      // What the config sets otherwise is set back, unsaid.
      layout.overrides.push_back(cat("mesh.", name, "=", size));
      if (size != usual) append(layout.name, layout.name.empty() ? "" : " ", name, "=", size);
    };
    add("tp", mesh.tp, 1);
    add("cp", mesh.cp, 1);
    add("pp", mesh.pp, 1);
    add("dp_shard", mesh.dp_shard, 1);
    add("dp_replicate", mesh.dp_replicate, 1);
    add("ep", mesh.ep, 1);
    add("etp", mesh.etp, 1);
    layout.overrides.emplace_back("parallel.data_parallel=1");
    // Options that a layout has no use for.
    const bool routed = mesh.ep * mesh.etp > 1;
    const bool nodes = Mesh(mesh, static_cast<int>(ranks)).node_shape(MeshGroup::ep).two_levels();
    if (mesh.pp == 1 || !routed) layout.overrides.emplace_back("pipeline.overlap=false");
    if (mesh.pp == 1) layout.overrides.emplace_back("offload.activations=false");
    if (!routed) layout.overrides.emplace_back("parallel.expert_rows=exact");
    if (!nodes) layout.overrides.emplace_back("parallel.sum_in_nodes=false");
    // The config's own pieces are of its own pipeline.
    if (mesh.pp != config.mesh.pp) layout.overrides.emplace_back("pipeline.layers=[]");
    layouts.push_back(std::move(layout));
  }
  if (layouts.empty()) {
    fail_usage(cat("no layout of ", counted(ranks, "rank"),
                   " is legal for this model and its batch; try another --ranks, or more or fewer "
                   "sequences in train.batch and train.micro_batch"));
  }
  return layouts;
}

std::vector<CheckedLayout> checked_layouts(const ParityOptions& options) {
  require_sense(options);
  std::vector<std::string> complaints;
  std::vector<CheckedLayout> checked;
  for (ParityLayout& layout : layouts_of(options)) {
    complaints.insert(complaints.end(), layout.mistakes.begin(), layout.mistakes.end());
    try {
      RunConfig config = config_of(options, layout);
      if (layout.mistakes.empty()) require_layout(layout, config);
      checked.push_back({.layout = std::move(layout), .config = std::move(config)});
    } catch (const Error& error) {
      if (error.code() != ExitCode::usage) throw;
      complaints.push_back(complaint_of(layout, options.overrides.size(), error.what()));
    }
  }
  if (!complaints.empty()) refuse(complaints);
  return checked;
}

}  // namespace shoestring
