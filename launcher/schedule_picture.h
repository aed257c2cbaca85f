#pragma once
// A schedule over simulated time as an SVG picture: a row a rank, a box an instruction.

#include <string>

#include "parallel/instruction.h"
#include "parallel/simulate.h"

namespace shoestring {

// Colours tell F, B, I and W; the first stage of a rank is darker than its others; boxes carry the
// micro-batch where they are wide enough. Of an interleaved pair the upper half is the first.
std::string schedule_svg(const Schedule& schedule, const Simulation& simulation);

// Usage error where a file that is no picture, such as a program written by hand, would be
// replaced.
void require_replaceable(const std::string& path);

}  // namespace shoestring
