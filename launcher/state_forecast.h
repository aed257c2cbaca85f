#pragma once
// The bytes that a rank holds from its start to its end: weights, gradients and the optimiser's
// state, by kind, exactly as the ledger will count them; and what ZeRO and exact mode hold of
// weights and gradients for a while.

#include <cstdint>

#include "launcher/rank_share.h"

namespace shoestring {

// Of N elements of the flat store, padding included, n of which this rank updates (ZeRO stage 0:
// all N), m bytes of their moments' type (padded to 64 bytes for each parameter's piece):
//   weights         4 N of f32; 2 N of bf16 copies; in stage 3 4 n or 2 n (codes of an FP8 recipe
//                   are made later)
//   gradients       4 N; in exact mode 4 n' of sums beside them, n' as in stage 1; from stage 2 on
//                   4 n alone
//   master_weights  0 of f32; 4 N beside copies, from stage 1 on 4 n
//   moments         AdamW 2 m n; Muon's matrices m n; the weight average 4 n
// With offload.optimizer masters, moments and sums of gradients are the host's and not counted.
struct StateForecast {
  int64_t weights = 0, gradients = 0, master_weights = 0, moments = 0;
  // For a while, at most: gradients of one micro-batch until they are reduced, where they are not
  // in the store, and weights that are gathered.
  int64_t waiting_gradients = 0, gathered_weights = 0;
  int64_t total() const { return weights + gradients + master_weights + moments; }
};
StateForecast forecast_state(const RunConfig& config, const RankShare& share);

}  // namespace shoestring
