#pragma once
// One rank's program by every published order. Each says what it needs in catalogue.cpp, which
// checks before it calls; here the sizes are legal. p ranks, m micro-batches, rank r.

#include <vector>

#include "parallel/instruction.h"
#include "parallel/simulate.h"

namespace shoestring {

Program gpipe_program(const Placement& where, int rank);
Program one_f_one_b_program(const Placement& where, int rank);
Program interleaved_program(const Placement& where, int rank);
Program zb_h1_program(const Placement& where, int rank);
Program zb_h2_program(const Placement& where, int rank);
Program zb_v_program(const Placement& where, int rank);
// DualPipe for StageOrder::both_ways, DualPipeV for vee.
Program dual_pipe_program(const Placement& where, int rank);

// The program of every rank at once; `times` are what the order is made for.
std::vector<Program> v_half_programs(const Placement& where, const StepTimes& times);
std::vector<Program> v_min_programs(const Placement& where, const StepTimes& times);
// The zero-bubble heuristic; `memory`: most activations of a rank, in micro-batches, at least 1.
std::vector<Program> automatic_programs(const Placement& where, const StepTimes& times,
                                        double memory);

}  // namespace shoestring
