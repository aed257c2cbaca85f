#pragma once
// What a schedule must have and has not.

#include <string>
#include <vector>

#include "parallel/instruction.h"

namespace shoestring {

// A complaint for every forward and backward pass of every stage and micro-batch, every part of one
// that is in parts, and, where the programs have transfers, every transfer between ranks that no
// program has: "rank 1: there is no 1F3". The numbers of all instructions are in range
// (standing_complaints_of() in parallel/schedule_checks.h asks behind its own checks of them).
std::vector<std::string> missing_complaints_of(const Schedule& schedule);

}  // namespace shoestring
