#pragma once
// The run's mesh, from its config: how many ranks, which part of the model each holds, and whether
// the model, the batches and the schedule allow it.

#include <cstdint>
#include <vector>

#include "io/batch_schedule.h"
#include "launcher/run_config.h"
#include "parallel/model_part.h"

namespace shoestring {

// How many ranks the config asks for.
int64_t ranks_of(const RunConfig& config);

// The axes for so many ranks, with mesh.dp_shard filled in. A usage error where parallel and mesh
// contradict one another or the number of ranks.
MeshConfig mesh_of(const RunConfig& config, int64_t ranks);
PartConfig part_config_of(const RunConfig& config, int64_t ranks);

// Do ranks yet have to measure which blocks each stage holds (pipeline.split)?
bool split_is_open(const RunConfig& config);

// Has parallel.zero_stage anything to act on? Several ranks that hold the same part of the model
// (data and context ranks, those of the experts' grid, both copies of DualPipe), or an optimiser
// whose state goes to host memory.
bool has_use_for_zero(const RunConfig& config, int64_t data_ranks);

// What is wrong with [pipeline] whatever the data: an unknown order, chunks that it does not take,
// layers that are not those of the model or not as many pieces as there are stages.
void check_pipeline(const RunConfig& config, Complaints& complaints);

// Usage error with every reason at once, and the nearest legal layouts. The config has its
// vocabulary.
void require_layout(const RunConfig& config, int64_t ranks,
                    const std::vector<LoadSegment>& segments);

// All that the run could be laid out on.
std::vector<MeshConfig> legal_meshes(const RunConfig& config, int64_t ranks);

}  // namespace shoestring
