#pragma once
// What the product's own checks of a config say of a case.

#include <algorithm>
#include <string_view>

#include "core/check.h"
#include "launcher/mesh_layout.h"
#include "launcher/run_config.h"
#include "tests/parallel/mesh_case.h"

namespace shoestring {

// The keys of a run that takes this step.
inline RunConfig run_config_of(const MeshCase& c) {
  RunConfig config;
  config.model = c.model;
  config.mesh = c.part.mesh;
  config.pipeline.schedule = c.part.schedule;
  config.pipeline.chunks = c.part.chunks;
  config.pipeline.overlap = c.part.overlap;
  config.parallel.context = c.part.context == ContextKind::ring ? "ring" : "all_to_all";
  config.parallel.tensor_chunks = c.part.tensor_chunks;
  config.parallel.expert_rows = c.part.fixed_rows ? "fixed" : "exact";
  config.parallel.sum_in_nodes = c.part.sum_in_nodes;
  config.parallel.zero_stage = c.zero_stage;
  config.offload.optimizer = c.offload_optimizer;
  config.offload.activations = c.offload_activations;
  config.train.exact = c.exact;
  return config;
}

// Whether the config has nothing against the key. Rules of other keys are not asked: a case may
// be of few settings, and the others would have to be there.
inline bool product_allows(const MeshCase& c, std::string_view key) {
  Complaints complaints;
  run_config_of(c).validate(complaints);
  return std::ranges::none_of(complaints.items(),
                              [&](const Complaints::Item& item) { return item.key == key; });
}

// Whether the mesh as it stands, with its nodes, can send experts' rows as the case asks.
inline bool product_lays_out(const MeshCase& c) {
  try {
    require_layout(run_config_of(c), c.ranks, {});
    return true;
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
    return false;
  }
}

}  // namespace shoestring
