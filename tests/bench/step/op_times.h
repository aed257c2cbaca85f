#pragma once
// Seconds and calls of every op of a step, from the trace that a run writes.

#include <ostream>
#include <string>

namespace shoestring {

// What rank 0 computed in `steps` steps, per step, slowest first.
void print_op_times(std::ostream& out, const std::string& trace, int steps);

}  // namespace shoestring
