#pragma once
// The part of parallel/traffic_forecast.h that is sent once gradients are there: sums over tensor
// ranks, of an embedding that stages share, and over replicas; gathers of what was shared out, in
// stage 3 of weights too.

#include <vector>

#include "parallel/traffic_forecast.h"

namespace shoestring {

// How many ranks of a pipeline hold a rank's stages, and whether it is the first of them.
int copies_of(const Placement& where, int rank);
bool is_first_copy(const Placement& where, int rank);

// `schedule`: of a step, without transfers; `chunks`: of every stage. Adds to `sum`, over all
// ranks.
void add_gradient_traffic(const StepFacts& facts, const Mesh& mesh, const Schedule& schedule,
                          const std::vector<Chunk>& chunks, TrafficForecast& sum);

}  // namespace shoestring
