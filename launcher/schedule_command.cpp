#include "launcher/schedule_command.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "launcher/schedule_program.h"
#include "launcher/schedule_times.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

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

StageSegments segments_of(const ScheduleOptions& o) {
  return o.segments.empty() ? StageSegments() : parse_segments(o.segments);
}

// Options that no order would take.
void require_sense(const ScheduleOptions& o) {
  parse_times(o.times);
  if (o.whole && o.segments.empty()) {
    fail_usage("--whole has no effect without --segments: pairs are split into these alone");
  }
  require_segments_of_times(o.times, segments_of(o));
}

// Options that the order would ignore.
void require_taken(const ScheduleOptions& o) {
  const bool named = o.program_file.empty();
  const std::string by = named ? o.name : cat("the program ", o.program_file);
  const ScheduleEntry entry = named ? schedule_entry(o.name) : ScheduleEntry();
  if (o.chunks && !entry.takes_chunks) refuse_option("--chunks", by);
  if (o.memory_limit && !entry.takes_memory) refuse_option("--memory-limit", by);
}

void require_same(std::string_view option, const std::optional<int>& wanted, int is,
                  const std::string& file) {
  if (!wanted || *wanted == is) return;
  fail_usage(cat(option, " is ", *wanted, ", but the program ", file, " has ", is,
                 "; leave the option out"));
}

Schedule ordered(const ScheduleOptions& o) {
  if (o.program_file.empty()) {
    return make_schedule({.name = o.name,
                          .ranks = o.ranks.value_or(usual_pipeline_ranks),
                          .micros = o.micro_batches.value_or(usual_micro_batches),
                          .chunks = o.chunks,
                          .times = parse_times(o.times),
                          .memory = o.memory_limit});
  }
  Schedule schedule = schedule_of_file(o.program_file);
  require_same("--ranks", o.ranks, schedule.where.ranks, o.program_file);
  require_same("--micro-batches", o.micro_batches, schedule.where.micros, o.program_file);
  return schedule;
}

// What changes a program would lose the places of its instructions, so what is wrong with one from
// a file is said before.
void refuse_as_written(Schedule& schedule, const StageSegments& segments) {
  if (schedule.places.empty()) return;
  if (!segments.empty()) {
    schedule.segments.assign(static_cast<size_t>(schedule.where.stages()), segments);
  }
  refuse_broken(schedule);
  schedule.segments.clear();
  schedule.places.clear();
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
    row.simulation = simulate(schedule, times_of(options.times, schedule));
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

}  // namespace

Schedule schedule_of(const ScheduleOptions& o, bool transfers) {
  if (o.program_file.empty() == o.name.empty()) {
    fail_usage(cat(o.name.empty() ? "neither --name of a schedule nor --program with a file is "
                                    "given, and one is needed"
                                  : "--name and --program are both given; leave one out",
                   "; shoestring schedule list shows the names"));
  }
  require_taken(o);
  require_sense(o);
  Schedule schedule = ordered(o);
  const bool add = transfers && !schedule.transfers;
  if (o.pairs || add || !o.segments.empty()) refuse_as_written(schedule, segments_of(o));
  if (o.pairs) schedule = pair_overlap(std::move(schedule));
  if (add) schedule = add_transfers(std::move(schedule));
  if (o.segments.empty()) return schedule;
  schedule.segments.assign(static_cast<size_t>(schedule.where.stages()), segments_of(o));
  const StepTimes times = times_of(o.times, schedule);
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
  require_sense(sizes);  // a mistake there is no schedule's
  const std::vector<std::string> all = names_to_compare(sizes, names);
  if (!json) {
    const int ranks = sizes.ranks.value_or(usual_pipeline_ranks);
    const int micros = sizes.micro_batches.value_or(usual_micro_batches);
    progress.line(cat(counted(ranks, "rank"), ", ", counted(micros, "micro-batch", "micro-batches"),
                      ", ", sizes.times));
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
