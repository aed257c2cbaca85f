#pragma once
// What is added to the programs of a schedule that only computes.

#include "parallel/instruction.h"

namespace shoestring {

// Sends right behind what makes a value, and posts its receipt `ahead` instructions (or pairs)
// before what reads it, so that it travels while those run. Where a rank reads values in another
// order than they were sent in, the earlier ones are posted sooner: a channel keeps its order
// (parallel/effects.h). A usage error lists all reasons when the schedule cannot run.
Schedule add_transfers(Schedule schedule, int ahead = 2);

}  // namespace shoestring
