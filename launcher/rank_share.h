#pragma once
// Which part of a run one rank has, from the config alone: its parameters and its order of work.
// What forecasts of memory depend on.

#include <cstdint>
#include <vector>

#include "core/model/parameters.h"
#include "launcher/run_config.h"
#include "parallel/instruction.h"
#include "parallel/mesh_layouts.h"
#include "parallel/shard_layout.h"

namespace shoestring {

struct RankShare {
  int64_t tensor = 1, context = 1, experts = 1;  // ranks of these axes
  ContextKind context_kind = ContextKind::ring;
  // The dense parameters held, or the routed experts, and the ranks that hold the same.
  struct Group {
    std::vector<ParamInfo> params = {};
    int ranks = 1, rank = 0;
  };
  Group dense = {}, routed = {};
  // What runs at once: a pipeline's whole step, else one micro-batch, and how often in a step.
  int64_t slots = 1;
  Placement where = {};
  Program program = {};
  std::vector<Chunk> chunks = {};  // of every stage of the model
};

// Rank `rank` of `ranks`, in a step of `micro_batches` on each data rank. The config has its
// vocabulary, and the layout is possible (launcher/mesh_layout.h).
RankShare share_of(const RunConfig& config, int ranks, int rank, int64_t micro_batches);

// A group's part of the flat numbering, and who updates which of it.
struct FlatGroup {
  std::vector<Param> params = {};
  int64_t elements = 0;  // padding included
  ShardLayout layout;
};
FlatGroup flat_group(const RunConfig& config, const RankShare::Group& group);

}  // namespace shoestring
