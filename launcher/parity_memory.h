#pragma once
// Peaks of memory beside what was forecast, by kind: the part of launcher/parity.h that judges
// them.

#include <array>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/memory.h"
#include "launcher/run_config.h"

namespace shoestring {

struct RankState;

// How far a peak may be from its forecast: not below `least` and not above `most` of it, `slack`
// bytes aside: figures of the step on their way, losses and counts, are no part of forecasts.
struct MemoryBand {
  double least = 1, most = 1;
  int64_t slack = 0;
  bool bounded() const { return least > 0; }
};
// What is there from the start to the end is exact, the rest is not, and least so where experts are
// shared out, whose rows depend on the routing. Not bounded: MemoryKind::other, of which there is
// no forecast, and the workspace of an FP8 recipe, which the forecast counts with the activations.
MemoryBand band_of(MemoryKind kind, const RunConfig& config);

// One kind of memory on one rank: the ledger's peak and what was forecast.
struct MemoryFigure {
  int64_t peak = 0, forecast = 0;
  int rank = 0;
  MemoryBand band = {};
};
using MemoryFigures = std::array<MemoryFigure, num_memory_kinds>;

// A rank's figures behind a step join those of the ranks before: of each kind those of the rank
// that is furthest from its band; of ranks inside theirs those of the one that holds most.
void add_memory(RankState& rank, const Batch& batch, MemoryFigures& worst);

// A line for each kind outside of its band.
std::vector<std::string> misses_of_memory(const MemoryFigures& figures);

}  // namespace shoestring
