#pragma once
// Puts G, R and S (parallel/instruction.h) into the programs of a schedule: the gathers of ZeRO
// stage 3 and the reductions of stages 2 and 3, for stages whose parameters data parallel ranks
// share out.

#include <limits>

#include "parallel/instruction.h"

namespace shoestring {

struct ShardingOptions {
  // Stage 3. Weights are gathered `ahead` computing instructions (or pairs) before they are needed,
  // and let go where they are not needed again within `hold` of them: 0 gathers for every forward
  // and every backward pass (two gathers a micro-batch), `whole_step` once.
  static constexpr int whole_step = std::numeric_limits<int>::max();
  bool gather = true;
  int ahead = 1;
  int hold = 1;
  // Stages 2 and 3. Gradients are reduced behind each micro-batch's B or W, or behind the last.
  bool reduce = true;
  bool reduce_each = true;
};

// A usage error lists all reasons when the schedule cannot run.
Schedule add_sharding(Schedule schedule, const ShardingOptions& options);

}  // namespace shoestring
