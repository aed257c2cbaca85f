#pragma once
// Which part of a run one rank has, from the config alone: its parameters, who shares them out, and
// its order of work. What forecasts of memory depend on.

#include <cstdint>
#include <vector>

#include "core/model/parameters.h"
#include "launcher/run_config.h"
#include "parallel/instruction.h"
#include "parallel/mesh_layouts.h"
#include "parallel/param_units.h"
#include "parallel/shard_layout.h"

namespace shoestring {

struct RankShare {
  int64_t tensor = 1, context = 1, experts = 1, slices = 1;  // ranks of these axes
  int64_t summing_nodes = 0;  // of the experts' ranks (parallel.sum_in_nodes); 0: none sums
  ContextKind context_kind = ContextKind::ring;
  // Parameters whose gradients are reduced together (parallel/step_gradients.h), and the ranks that
  // hold the same: `shards` that share them out, `replicas` times.
  struct Group {
    std::vector<ParamInfo> params = {};
    bool routed = false;           // experts
    std::vector<int> stages = {};  // that make their gradients
    int shards = 1, shard = 0, replicas = 1;
    int64_t sources = 1;  // gradients of one parameter that are kept apart
    int ranks() const { return shards * replicas; }
  };
  std::vector<Group> groups = {};  // in the order of the store
  bool holds_shared = false;       // an embedding that another rank of the pipeline has too
  // Micro-batches at most whose gradients of it wait here for the other rank's; 0: as the program
  // says, for both ranks do the same at the same time (DualPipe).
  int64_t shared_slots = 0;
  // What runs at once: a pipeline's whole step, in ZeRO stage 3 with its gathers (G, R), else one
  // micro-batch, and how often in a step.
  int64_t slots = 1;
  int64_t micro_batches = 1;  // of this rank in a step
  Placement where = {};
  Program program = {};
  std::vector<Chunk> chunks = {};  // of every stage of the model
};

// Of the data rank that has most of a step's.
inline int64_t most_micro_batches(int64_t all, int64_t data_ranks) {
  return (all + data_ranks - 1) / data_ranks;
}

// Rank `rank` of `ranks`, in a step of `micro_batches` on each data rank. The config has its
// vocabulary, and the layout is possible (launcher/mesh_layout.h).
RankShare share_of(const RunConfig& config, int ranks, int rank, int64_t micro_batches);

// A group's part of the flat numbering, and who updates which of it.
struct FlatGroup {
  std::vector<Param> params = {};
  int64_t elements = 0;  // padding included
  ShardLayout layout;
  std::vector<ParamUnit> units = {};  // of ZeRO stages 2 and 3
  bool holds = false;                 // gradients of a slot are kept apart until they are reduced
};
FlatGroup flat_group(const RunConfig& config, const RankShare& share,
                     const RankShare::Group& group);

}  // namespace shoestring
