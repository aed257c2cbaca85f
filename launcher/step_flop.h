#pragma once
// The useful arithmetic of training steps, which MFU compares with the machine's peak. Attention
// counts what the rows at hand ask for: documents packed into a row do not see one another.

#include <cstdint>

#include "core/batch.h"
#include "core/model/parameters.h"

namespace shoestring {

// How many (query, key) pairs causal attention computes for these rows:
// the sum over tokens t of t - max(first_key[t], t - window + 1) + 1; window 0 = no limit.
int64_t attended_pairs(const MicroBatch& micro, int64_t window);

// Forward and backward: 6 per token and weight that multiplies (training_flop_per_token without its
// attention), and training_flop_per_pair.
double training_flop(const ModelConfig& model, int64_t tokens, double pairs);

}  // namespace shoestring
