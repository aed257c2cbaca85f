#pragma once
// Times of passes and segments as people write them.

#include <string>

#include "parallel/instruction.h"
#include "parallel/simulate.h"

namespace shoestring {

// "F=1,I=1,W=1,comm=0", any of them, also FB (an interleaved pair), A2A (dispatch and combine, one
// way) and kinds of segments, "experts=0.5/0.5/0.4" for F, I and W; others stay as they are by
// default. A usage error names the part that is wrong.
StepTimes parse_times(const std::string& text);
// The same; where segments are told and no time of any that computes, F, I and W of a stage are
// shared out evenly over those but edges.
StepTimes times_of(const std::string& text, const Schedule& schedule);

// Times of segments where none are told (an empty list), or of others: a usage error names them.
void require_segments_of_times(const std::string& text, const StageSegments& segments);
// What other times of the same text, or the lack of pairs, leaves without an effect; empty:
// nothing.
std::string warning_of_times(const std::string& text, const Schedule& schedule);

}  // namespace shoestring
