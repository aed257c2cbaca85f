#pragma once
// How a run is laid out over its ranks, for people and for programs.

#include <string>

#include "launcher/run_config.h"

namespace shoestring {

// The mesh (Mesh::text; folded above 16 ranks unless `every_rank`), where the pieces of the model
// stand and in which order they work, micro-batches of the first step and what data ranks share
// out. Usage errors where the config does not allow so many ranks.
std::string layout_text(const RunConfig& config, int ranks, bool every_rank);

// The same as JSON, every rank:
//   {"ranks", "nodes", "axes": {"tp": 2, ...}, "groups": [{"name", "ranks", "nodes"}],
//    "schedule", "stages": [{"blocks", "pp": [of the pipeline's ranks that hold it]}],
//    "micro_batches", "micro_batches_of_data_rank", "zero_stage",
//    "places": [{"rank", "node", "tp", "cp", ...}]}
std::string layout_json(const RunConfig& config, int ranks);

}  // namespace shoestring
