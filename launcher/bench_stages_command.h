#pragma once
// `shoestring bench stages`: what the pieces of a pipeline take on this machine, and the split of
// the blocks that is best by it.

#include <cstdint>
#include <string>
#include <vector>

#include "launcher/measurement.h"

namespace shoestring {

struct BenchStagesOptions {
  std::string config;
  std::vector<std::string> overrides = {};  // section.key=value, as for training
  int64_t rounds = 5;
};

struct StagesBench {
  // Of each piece its time and its spread (launcher/piece_costs.h); the dearest stage over the
  // mean.
  std::vector<Measurement> rows;
  std::vector<int64_t> blocks;  // of each piece of the best split
  std::string layers;           // the same, "pipeline.layers = [3, 3, 2]"
  std::string note;             // that the machine is not quiet enough; empty: it is
};
StagesBench bench_stages(const BenchStagesOptions& options);

}  // namespace shoestring
