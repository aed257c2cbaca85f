#pragma once
// A schedule on the real engine and communicator, with timed waits in place of arithmetic: what it
// takes beyond the simulator's figure is what engine and transfers add.

#include <vector>

#include "parallel/pipeline_engine.h"
#include "parallel/simulate.h"

namespace shoestring {

// Between whom the rows of segments that travel do so, where the schedule knows segments: ranks
// that run the same program, over links whose bandwidth makes rows take the times of the segments
// (parallel/comm/throttled.h). Passes of the two directions have communicators of their own.
struct RehearsalRows {
  Communicator *forward = nullptr, *backward = nullptr;
  double bytes_per_second = 4e6;
};

struct RehearsalOptions {
  StepTimes times = {};  // in units; comm is not imposed
  double seconds_per_unit = 5e-3;
  int64_t boundary_elements = 256;  // f32, of what passes between stages
  RehearsalRows rows = {};
};

struct RehearsedRank {
  double first_start = 0, last_end = 0;  // seconds, from a moment common to all ranks
  double exposed = 0;  // seconds in which rows travelled and nothing else could run
  PipelineStats stats;
};

struct Rehearsal {
  double makespan = 0;  // seconds, first start to last end
  std::vector<RehearsedRank> ranks;
};

// The rank's part; all ranks of `pipeline` call at once, with the schedule as add_transfers()
// gives it. Values carry (stage, micro-batch) and are checked where they arrive.
Rehearsal rehearse(Communicator& pipeline, const Schedule& schedule,
                   const RehearsalOptions& options);

}  // namespace shoestring
