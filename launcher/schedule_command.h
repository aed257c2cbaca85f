#pragma once
// Looking at pipeline schedules: names, programs as text, a picture, times over a clock.

#include <optional>
#include <string>
#include <vector>

#include "launcher/progress.h"
#include "parallel/instruction.h"
#include "parallel/simulate.h"

namespace shoestring {

inline constexpr int usual_pipeline_ranks = 4, usual_micro_batches = 8;

struct ScheduleOptions {
  std::string name = {};                              // of the catalogue; or
  std::string program_file = {};                      // a text program, "-" for standard input
  std::optional<int> ranks = {}, micro_batches = {};  // default 4 and 8, or the program's own
  std::optional<int> chunks = {};                     // of a rank, for interleaved-1f1b
  std::optional<double> memory_limit = {};            // micro-batches a rank keeps, for automatic
  std::string times = "F=1,I=1,W=1,comm=0";
  std::string segments = {};  // of every stage, "attention,dispatch,experts,combine"; or not told
  bool pairs = false;         // joins passes to pairs (parallel/segment_passes.h)
  bool whole = false;         // pairs are not split where segments are told
};

// Of the catalogue or the file (launcher/schedule_program.h), as pairs and in parts if so wished.
// Options that it would ignore, or that contradict the file, are usage errors.
Schedule schedule_of(const ScheduleOptions& options, bool transfers = false);

std::string schedule_list_text();
std::string schedule_list_json();  // {"name", "summary", "source"} of each
// {"name", "ranks", "micro_batches", "makespan", "bubble": [of each rank], "window_bubble": [...],
// "peak_activations": [...]}
std::string simulation_json(const Schedule& schedule, const Simulation& simulation);
// A table with a line a rank, and the makespan.
std::string simulation_table(const Schedule& schedule, const Simulation& simulation);

// All orders of the catalogue, or those named, side by side: a line each as soon as it is known, of
// an order that these sizes do not allow why. JSON: a list, an element a line.
void print_comparison(const ScheduleOptions& sizes, const std::vector<std::string>& names,
                      bool json, ProgressLine& progress);

}  // namespace shoestring
