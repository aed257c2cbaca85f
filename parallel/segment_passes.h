#pragma once
// From a schedule of whole passes to one at the grain of segments, where a forward and a backward
// pass of different micro-batches run interleaved, so that the rows of one travel while the other
// computes (docs/pipeline.md).

#include "parallel/simulate.h"

namespace shoestring {

// Whether passes of this schedule (parallel/schedules/catalogue.h) run in pairs, by themselves or
// behind pair_overlap().
bool can_overlap(std::string_view schedule);
bool has_pairs(const Schedule& schedule);

// Joins each backward pass with a forward pass of a later micro-batch: of 2 ranks, "1F0 1B0 1F1
// 1B1" becomes "1F0 1F1&1B0 1B1". For the orders of 1F1B, whose generators write no pairs; without
// transfers. In a pair every pass takes as long as both, so the way to the last rank and back spans
// twice as many pairs: rank r of 1F1B runs p - r forward passes further ahead (activations 2 (p -
// r) instead of p - r), of interleaved 1F1B, whose warm-up is as long already, one.
Schedule pair_overlap(Schedule schedule);

// Every pair F&B or B&F as parts of both, F.0 to the last and B from the last to 0 with I and W
// apart, in an order that hides by `times` what travels: in each step the pass that can go on
// first, and of two the one with more to do. What sends leave behind a pair goes when its pass is
// done, in front of the R and S of the pair (parallel/sharding_pass.h). Other instructions stay
// whole. `segments`: of each stage. The result can run, or there is a usage error.
//
// Gradients of a parameter are added in the order of the pair, so that every bit is that of whole
// passes: where both may make some of the embedding's matrix (F those of a tied head, B those of
// the embedding), the edges of the second come behind those of the first.
Schedule split_segments(Schedule schedule, std::vector<StageSegments> segments,
                        const StepTimes& times);

}  // namespace shoestring
