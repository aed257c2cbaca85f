#pragma once
// A schedule over a clock: what it takes and how much it keeps, or why it cannot run.

#include <array>
#include <string>
#include <vector>

#include "parallel/instruction.h"

namespace shoestring {

// Of one segment and one micro-batch. Of dispatch and combine f and i are the way there of rows and
// of gradients, w is nothing.
struct SegmentTimes {
  double f = 0, i = 0, w = 0;
};

// Of one rank's whole share of the model and one micro-batch, in any unit; a stage takes
// Placement::share_of_stage() of it.
struct StepTimes {
  double f = 1, i = 1, w = 1;
  double fb = 0;    // an interleaved pair; 0: f + i + w
  double comm = 0;  // from the end on one rank to the start on another
  // By SegmentKind: where the schedule knows the segments of its stages, their sums take the place
  // of f, i, w and fb.
  std::array<SegmentTimes, segment_kinds> segments = {};
};

struct SimulatedRank {
  double first_start = 0, last_end = 0, busy = 0;
  double exposed = 0;        // while its own rows travel (dispatch, combine), nothing else runs
  double bubble = 0;         // other idle time between first start and last end of the whole step
  double window_bubble = 0;  // the same within this rank's own first start and last end
  double peak_activations =
      0;  // in micro-batches of a rank's whole share; F takes, B or W gives back
  // Where the program shards: gathered weights and gradients before their reduction, in whole
  // shares of a rank. Without its instructions 0.
  double peak_weights = 0, peak_gradients = 0;
  std::vector<double> start, end;  // of each instruction
};

struct Simulation {
  double makespan = 0;  // first start to last end
  std::vector<SimulatedRank> ranks;
};

// Every reason why the schedule is wrong: a stage on another rank than its own, a number out of
// range, something made or eaten twice or never, a pair without a partner, ranks that wait for one
// another. Empty when it can run.
std::vector<std::string> complaints_of(const Schedule& schedule);

// A usage error with all complaints when it cannot run.
void refuse_broken(const Schedule& schedule);

// The same error when it cannot run.
Simulation simulate(const Schedule& schedule, const StepTimes& times);

}  // namespace shoestring
