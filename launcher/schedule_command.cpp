#include "launcher/schedule_command.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "launcher/progress.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

double parse_time(std::string_view text, const std::string& part) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || !std::isfinite(value) || value < 0 || value > 1e9) {
    fail_usage(cat("--times: \"", part, "\" needs a number from 0 to 1e9 behind the ="));
  }
  return value;
}

std::string read_program(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return read_small_file(path, 64ull << 20);
}

bool stand_where_they_run(const std::vector<Program>& programs, const Placement& where) {
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    for (const Instruction& i : programs[rank]) {
      if (i.stage >= where.stages() || where.rank_of(i.stage, i.micro) != static_cast<int>(rank)) {
        return false;
      }
    }
  }
  return true;
}

// The order of stages under which every instruction runs on its stage's rank.
Placement placement_of(const std::vector<Program>& programs, const std::string& name) {
  int stages = 0, micros = 0;
  for (const Program& program : programs) {
    for (const Instruction& i : program) {
      stages = std::max(stages, i.stage + 1);
      micros = std::max(micros, i.micro + 1);
    }
  }
  const auto ranks = static_cast<int>(programs.size());
  if (ranks == 0) fail_usage(cat(name, ": no instructions; write a line a rank, as 0F0 0F1 1B0"));
  std::vector<Placement> candidates;
  if (stages % ranks == 0) {
    candidates.push_back({.order = StageOrder::loop, .ranks = ranks, .chunks = stages / ranks});
  }
  if (stages == 2 * ranks) {
    candidates.push_back({.order = StageOrder::vee, .ranks = ranks, .chunks = 2});
  }
  if (stages == ranks) {
    candidates.push_back({.order = StageOrder::both_ways, .ranks = ranks, .chunks = 2});
  }
  for (Placement& where : candidates) {
    where.micros = micros;
    if (stand_where_they_run(programs, where)) return where;
  }
  fail_usage(
      cat(name, ": ", counted(stages, "stage"), " on ", counted(ranks, "rank"),
          " stand nowhere known: stage s belongs on rank s mod p, or on r and 2p - 1 - r, or "
          "in both directions on r and p - 1 - r"));
}

double largest(const std::vector<SimulatedRank>& ranks, double SimulatedRank::*member) {
  double most = 0;
  for (const SimulatedRank& rank : ranks) most = std::max(most, rank.*member);
  return most;
}

// A number with at most four digits behind the point.
std::string figure(double value) {
  std::string text = text_of_fixed(std::abs(value) < 5e-5 ? 0 : value, 4);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::string padded(const std::string& text, size_t width, bool left = false) {
  const std::string blanks(text.size() < width ? width - text.size() : 0, ' ');
  return left ? text + blanks : blanks + text;
}

[[noreturn]] void refuse_option(std::string_view option, const std::string& by) {
  fail_usage(cat(option, " has no effect on ", by, ": it is for ",
                 option == "--chunks" ? "interleaved-1f1b" : "automatic", "; leave it out"));
}

// Options that the order would ignore.
void require_taken(const ScheduleOptions& o) {
  const bool named = o.program_file.empty();
  const std::string by = named ? o.name : cat("the program ", o.program_file);
  const ScheduleEntry entry = named ? schedule_entry(o.name) : ScheduleEntry();
  if (o.chunks && !entry.takes_chunks) refuse_option("--chunks", by);
  if (o.memory_limit && !entry.takes_memory) refuse_option("--memory-limit", by);
}

struct Compared {
  std::string name, refusal;
  Simulation simulation;
};

Compared compared(const ScheduleOptions& sizes, const std::string& name) {
  ScheduleOptions options = sizes;
  options.name = name;
  const ScheduleEntry& entry = schedule_entry(name);
  if (!entry.takes_chunks) options.chunks.reset();
  if (!entry.takes_memory) options.memory_limit.reset();
  Compared row{.name = name, .refusal = "", .simulation = {}};
  try {
    const Schedule schedule = schedule_of(options);
    row.simulation = simulate(schedule, times_of(options, schedule));
  } catch (const Error& e) {
    row.refusal = e.what();
  }
  return row;
}

// All of the catalogue where none is named. An unknown one, and an option that none of them takes,
// are refused before the first is looked at.
std::vector<std::string> names_to_compare(const ScheduleOptions& sizes,
                                          std::vector<std::string> names) {
  if (names.empty()) {
    for (const ScheduleEntry& entry : schedule_entries()) names.push_back(entry.name);
  }
  bool chunks = false, memory = false;
  for (const std::string& name : names) {
    const ScheduleEntry& entry = schedule_entry(name);
    chunks |= entry.takes_chunks, memory |= entry.takes_memory;
  }
  if (sizes.chunks && !chunks) refuse_option("--chunks", "these");
  if (sizes.memory_limit && !memory) refuse_option("--memory-limit", "these");
  return names;
}

std::string comparison_row(const Compared& row) {
  std::string text = padded(row.name, 18, true);
  if (!row.refusal.empty()) return cat(text, "  ", row.refusal);
  const auto& ranks = row.simulation.ranks;
  append(text, padded(figure(row.simulation.makespan), 10),
         padded(figure(largest(ranks, &SimulatedRank::bubble)), 16),
         padded(figure(largest(ranks, &SimulatedRank::peak_activations)), 18));
  return text;
}

Json comparison_json(const Compared& row) {
  Json json = {{"name", row.name}};
  if (!row.refusal.empty()) {
    json["reason"] = row.refusal;
    return json;
  }
  const auto& ranks = row.simulation.ranks;
  json["makespan"] = row.simulation.makespan;
  json["largest_bubble"] = largest(ranks, &SimulatedRank::bubble);
  json["peak_activations"] = largest(ranks, &SimulatedRank::peak_activations);
  return json;
}

// "experts", "0.5/0.5/0.4"; A2A is one number for all that travels. False: no such key.
bool take_segment_times(StepTimes& times, const std::string& key, std::string_view value,
                        const std::string& part) {
  if (key == "A2A") {
    const double way = parse_time(value, part);
    for (const SegmentKind kind : {SegmentKind::dispatch, SegmentKind::combine}) {
      times.segments[static_cast<size_t>(kind)] = {.f = way, .i = way};
    }
    return true;
  }
  for (size_t k = 0; k < segment_kinds; ++k) {
    if (name_of(static_cast<SegmentKind>(k)) != key) continue;
    SegmentTimes& t = times.segments[k];
    for (double* time : {&t.f, &t.i, &t.w}) {
      const size_t end = std::min(value.find('/'), value.size());
      *time = parse_time(value.substr(0, end), part);
      value.remove_prefix(std::min(end + 1, value.size()));
      if (value.empty()) return true;
    }
    fail_usage(cat("--times: \"", part, "\" has more than F, I and W"));
  }
  return false;
}

Schedule schedule_of_file(const std::string& path) {
  Schedule schedule{.name = path, .where = {}, .ranks = {}};
  schedule.ranks = parse_programs(read_program(path), path);
  schedule.where = placement_of(schedule.ranks, path);
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) schedule.transfers |= is_transfer(i.what);
  }
  return schedule;
}

}  // namespace

StepTimes parse_times(const std::string& text) {
  StepTimes times;
  const std::map<std::string, double*> known = {
      {"F", &times.f}, {"I", &times.i}, {"W", &times.w}, {"FB", &times.fb}, {"comm", &times.comm}};
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const size_t equals = std::min(part.find('='), part.size());
    const std::string key = part.substr(0, equals);
    const std::string_view value = std::string_view(part).substr(std::min(equals + 1, part.size()));
    const auto slot = known.find(key);
    if (equals < part.size() && slot != known.end()) {
      *slot->second = parse_time(value, part);
    } else if (equals == part.size() || !take_segment_times(times, key, value, part)) {
      fail_usage(cat("--times: \"", part, "\" is none of F=, I=, W=, FB=, comm=, A2A= and the ",
                     "kinds of segments, as experts=1/1/1, parted by commas"));
    }
    at = end + 1;
  }
  if (times.f + times.i + times.w <= 0) fail_usage("--times: F, I and W are all 0");
  return times;
}

StepTimes times_of(const ScheduleOptions& options, const Schedule& schedule) {
  StepTimes times = parse_times(options.times);
  if (schedule.segments.empty()) return times;
  const StageSegments& segments = schedule.segments[0];
  const auto computes = [](SegmentKind kind) {
    return kind != SegmentKind::edge && !travels(kind);
  };
  for (const SegmentKind kind : segments) {
    const SegmentTimes& t = times.segments[static_cast<size_t>(kind)];
    if (computes(kind) && t.f + t.i + t.w > 0) return times;
  }
  const auto count = static_cast<double>(std::ranges::count_if(segments, computes));
  if (count == 0) fail_usage("--segments: none of them computes");
  const double share = schedule.where.share_of_stage() / count;
  for (const SegmentKind kind : segments) {
    if (!computes(kind)) continue;
    times.segments[static_cast<size_t>(kind)] = {times.f * share, times.i * share, times.w * share};
  }
  return times;
}

Schedule schedule_of(const ScheduleOptions& o, bool transfers) {
  if (o.program_file.empty() == o.name.empty()) {
    fail_usage(
        "either --name of a schedule or --program with a file is needed, not both; "
        "shoestring schedule list shows the names");
  }
  require_taken(o);
  Schedule schedule = o.program_file.empty() ? make_schedule({.name = o.name,
                                                              .ranks = o.ranks,
                                                              .micros = o.micro_batches,
                                                              .chunks = o.chunks,
                                                              .times = parse_times(o.times),
                                                              .memory = o.memory_limit})
                                             : schedule_of_file(o.program_file);
  if (o.pairs) schedule = pair_overlap(std::move(schedule));
  if (transfers && !schedule.transfers) schedule = add_transfers(std::move(schedule));
  if (o.segments.empty()) return schedule;
  schedule.segments.assign(static_cast<size_t>(schedule.where.stages()),
                           parse_segments(o.segments));
  const StepTimes times = times_of(o, schedule);
  if (o.whole) return schedule;
  std::vector<StageSegments> segments = schedule.segments;
  return split_segments(std::move(schedule), std::move(segments), times);
}

std::string schedule_list_text() {
  std::string text;
  for (const ScheduleEntry& entry : schedule_entries()) {
    append(text, padded(entry.name, 18, true), entry.summary, " (", entry.source, ")\n");
  }
  append(text,
         "\np ranks, m micro-batches, v chunks a rank; F forward, I and W backward for inputs and "
         "weights, B = I + W;\nactivations in micro-batches of one rank's share of the model, of "
         "the worst rank\n");
  return text;
}

std::string schedule_list_json() {
  Json list = Json::array();
  for (const ScheduleEntry& entry : schedule_entries()) {
    list.push_back({{"name", entry.name}, {"summary", entry.summary}, {"source", entry.source}});
  }
  return list.dump(1) + "\n";
}

std::string simulation_json(const Schedule& schedule, const Simulation& simulation) {
  Json json = {{"name", schedule.name},
               {"ranks", schedule.where.ranks},
               {"micro_batches", schedule.where.micros},
               {"makespan", simulation.makespan}};
  for (const char* key : {"bubble", "exposed", "window_bubble", "peak_activations"}) {
    json[key] = Json::array();
  }
  for (const SimulatedRank& rank : simulation.ranks) {
    json["bubble"].push_back(rank.bubble);
    json["exposed"].push_back(rank.exposed);
    json["window_bubble"].push_back(rank.window_bubble);
    json["peak_activations"].push_back(rank.peak_activations);
  }
  return json.dump(1) + "\n";
}

std::string simulation_table(const Schedule& schedule, const Simulation& simulation) {
  std::string text = cat(schedule.name, ": ", counted(schedule.where.ranks, "rank"), ", ",
                         counted(schedule.where.micros, "micro-batch", "micro-batches"),
                         ", makespan ", figure(simulation.makespan), "\n");
  append(text, "rank      busy   exposed    bubble   in its window  peak activations\n");
  for (size_t r = 0; r < simulation.ranks.size(); ++r) {
    const SimulatedRank& rank = simulation.ranks[r];
    append(text, padded(cat(r), 4), padded(figure(rank.busy), 10), padded(figure(rank.exposed), 10),
           padded(figure(rank.bubble), 10), padded(figure(rank.window_bubble), 16),
           padded(figure(rank.peak_activations), 18), "\n");
  }
  append(text,
         "exposed: rows travel and nothing else can run. bubble: other idle time between the first "
         "start and the last end of all ranks; in its window: of its own.\nActivations in "
         "micro-batches of a rank's share of the model.\n");
  return text;
}

void print_comparison(const ScheduleOptions& sizes, const std::vector<std::string>& names,
                      bool json, ProgressLine& progress) {
  parse_times(sizes.times);  // a mistake there is no schedule's
  const std::vector<std::string> all = names_to_compare(sizes, names);
  if (!json) {
    progress.line(cat(counted(sizes.ranks, "rank"), ", ",
                      counted(sizes.micro_batches, "micro-batch", "micro-batches"), ", ",
                      sizes.times));
    progress.line(padded("", 18, true) + "  makespan  largest bubble  peak activations");
  }
  for (size_t k = 0; k < all.size(); ++k) {
    progress.update(cat("simulating ", all[k], "  ", k + 1, " of ", all.size()));
    const Compared row = compared(sizes, all[k]);
    if (!json) {
      progress.line(comparison_row(row));
      continue;
    }
    const bool last = k + 1 == all.size();
    progress.line(cat(k == 0 ? "[" : " ", comparison_json(row).dump(), last ? "]" : ","));
  }
}

}  // namespace shoestring
