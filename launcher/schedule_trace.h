#pragma once
// A simulated schedule as a trace, with the lanes and names of a run's (step_events.h).

#include <string>

#include "parallel/instruction.h"
#include "parallel/simulate.h"

namespace shoestring {

// The instructions over simulated time as a Chrome / Perfetto trace, a process a rank; a unit of
// time is a millisecond. `comm` as in StepTimes: where it is above 0 the ways from rank to rank
// have lanes, on the rank that sends.
void write_schedule_trace(const Schedule& schedule, const Simulation& simulation, double comm,
                          const std::string& path);

}  // namespace shoestring
