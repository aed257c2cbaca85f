#pragma once
// What is wrong with a schedule as it stands, before anything runs (parallel/simulate.h).

#include <string>
#include <vector>

#include "parallel/instruction.h"

namespace shoestring {

// Numbers out of range, stages on other ranks than their own, pairs without a partner, parts that
// do not fit their stage's segments, passes in parts that begin before the one before them ends,
// passes and transfers that no program has, values received in another order than they were sent
// in.
std::vector<std::string> standing_complaints_of(const Schedule& schedule);

}  // namespace shoestring
