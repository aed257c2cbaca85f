#pragma once
// How a step looks in a trace. A run (run_trace.h) and a simulated schedule (schedule_trace.h)
// write the same lanes and names, so that the two lie one above the other.

#include <string>
#include <vector>

#include "io/trace.h"
#include "parallel/instruction.h"

namespace shoestring {

// Lanes of a rank, in the order in which they are shown; those of communicators and of data follow.
//   steps      of a run: "step 3"
//   compute    F, B, I and W as programs write them: "1F0", "0F3&3B5", "0I2.3"
//   waits      what keeps the next one: "input of 1F0", "sums of gradients"
//   rows       parts that travel: "0F7.1~"
//   transfers  of a program that has them: SA, RA, SG, RG, G, R, S
//   ops        of a run: "linear forward", "update"
std::vector<std::string> step_lanes();

// "communication tp", of the communicator "tp/2": its calls, each by its kind ("all_reduce") with
// the figures group and bytes (what this rank sends).
std::string communication_lane(std::string_view communicator);

// A rank's instructions as events. They come in the order of its program.
class StepEvents {
 public:
  StepEvents(TraceWriter& writer, int rank) : writer_(writer), rank_(rank) {}
  // A pair that runs interleaved is one event, from the first's begin to the last's end.
  void add(const Instruction& instruction, double begin, double end);

 private:
  TraceWriter& writer_;
  int rank_;
  std::string name_;  // of a pair under way
  double begin_ = 0;
};

}  // namespace shoestring
