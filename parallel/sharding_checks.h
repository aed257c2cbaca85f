#pragma once
// What the programs of sharded stages keep on their ranks between G and R, and before S
// (parallel/effects.h): whether it is there when it is needed, and how much it is.

#include <string>
#include <vector>

#include "parallel/instruction.h"

namespace shoestring {

// Weights that are used, released or left gathered without or against G; gradients that S does not
// find, or that are left. One S of a stage takes those of all micro-batches before it; of several,
// each takes its own. Stages and micro-batches are in range. Programs without G, R and S have
// nothing to say.
std::vector<std::string> sharding_complaints_of(const Schedule& schedule);

// The most that a rank keeps at once, in whole shares of a rank.
struct KeptShares {
  double weights = 0, gradients = 0;
};
KeptShares peak_kept(const Schedule& schedule, int rank);

}  // namespace shoestring
