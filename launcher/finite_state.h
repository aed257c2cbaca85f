#pragma once
// What keeps a run whose numbers have gone wrong from losing what it had saved.

#include <cstdint>
#include <string>

#include "launcher/rank_state.h"

namespace shoestring {

// The first element that is infinite or not a number among what this rank would save (masters it
// owns, optimiser state, average, selection biases): "tensor layers.0.norm.weight (element 3 of the
// weight is nan)". Empty: all are finite. One pass over that memory, as a copy of it is.
std::string text_of_bad_state(const RankState& rank);

// All ranks call. A fault that names step and tensor where some rank's state is not finite: such a
// checkpoint would only push out good ones. `saved`: as in remedy_of().
void require_finite_state(RankState& rank, int64_t saved);

// What helps after a loss, a gradient or a state that is not finite: where the next start goes on,
// what that costs, and which settings to change. `saved`: the step of the newest checkpoint on the
// disk, -1 for none.
std::string remedy_of(const RankState& rank, int64_t saved);

}  // namespace shoestring
