#pragma once
// Bytes inside one op at its worst moment, from the config alone: what does not outlive the op.

#include "launcher/memory_forecast.h"
#include "launcher/stage_memory.h"

namespace shoestring {

// Of a rank with the input's share of a micro-batch and of the model. Upper bounds; those of
// experts for any routing: all tokens may choose the same expert.
OpWorkspaces forecast_workspaces(const RunConfig& config, const ForecastInput& input);

}  // namespace shoestring
