#pragma once
// A rehearsal of a schedule on threads as ranks, beside what the simulator says.

#include <functional>
#include <vector>

#include "launcher/measurement.h"
#include "parallel/rehearsal.h"

namespace shoestring {

// What a rehearsal is about to do: its threads, and how long it takes by the simulation.
struct RehearsalPlan {
  int threads = 0;
  double seconds = 0;
};
using RehearsalTold = std::function<void(const RehearsalPlan&)>;

// Whether any segment's rows travel between ranks.
bool rows_travel(const Schedule& schedule);

// Rows "makespan_seconds", "simulated_seconds", "over_simulation" (goal: at most 1.05), and of the
// rank that waited longest "longest_wait_seconds"; "overhead_per_instruction_seconds" is what
// neither computing nor waiting took, of the worst rank. A schedule without transfers gets them.
//
// Where rows of segments travel, each pipeline rank is `expert_ranks` threads, between which
// rows travel, and there are "exposed_share", the worst rank's time in which rows travelled and
// nothing else could run, over the makespan (goal: at most 0.05 where the simulator says so), and
// "simulated_exposed_share".
//
// `tell` is called before the first thread starts. More than 512 threads are a usage error.
std::vector<Measurement> rehearse_in_threads(Schedule schedule, const RehearsalOptions& options,
                                             int expert_ranks = 2, const RehearsalTold& tell = {});

}  // namespace shoestring
