#pragma once
// Which segments a model's pipeline stages have: the parts in which their passes can run
// (parallel/segment_passes.h).

#include "core/model/parameters.h"
#include "parallel/instruction.h"

namespace shoestring {

// Of each chunk, as its tape records them, with or without prediction modules.
std::vector<StageSegments> segments_of(const ModelConfig& model, const std::vector<Chunk>& chunks,
                                       bool predictions = true);

}  // namespace shoestring
