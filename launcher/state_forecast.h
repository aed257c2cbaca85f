#pragma once
// The bytes that a rank holds from its start to its end: weights, gradients and the optimiser's
// state, by kind, exactly as the ledger will count them.

#include <cstdint>

#include "launcher/rank_share.h"

namespace shoestring {

// Of N elements of the flat store, padding included, n of which this rank updates, m of their
// moments' type (padded to 64 bytes for each parameter's piece):
//   weights         4 N of f32; 2 N of bf16 copies (codes of an FP8 recipe are made later)
//   gradients       4 N; in exact mode 4 n of sums beside them
//   master_weights  0 of f32; 4 N beside copies
//   moments         AdamW 2 m n; Muon's matrices m n; the weight average 4 n
struct StateForecast {
  int64_t weights = 0, gradients = 0, master_weights = 0, moments = 0;
  int64_t total() const { return weights + gradients + master_weights + moments; }
};
StateForecast forecast_state(const RunConfig& config, const RankShare& share);

}  // namespace shoestring
