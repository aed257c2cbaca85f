#pragma once
// The global gradient norm, the same bits for every layout, and the clipping rule.
//
// Squares are summed in f64 over units of 64 elements (fixed tree), units in order over blocks of
// 4,096 elements of the flat numbering, blocks in order over the store. A rank computes terms for
// the range it owns: one per whole block, one per unit where the range begins or ends inside a
// block. Terms of all ranks, concatenated in the order of the numbering, give the sum of squares.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/param.h"
#include "optim/shard.h"

namespace shoestring {

inline constexpr int64_t norm_unit = 64;
inline constexpr int64_t norm_block = 4096;

// Number of terms of a range, a function of its borders alone. Borders must be multiples of
// norm_unit.
int64_t norm_terms(FlatRange range);

// The terms of `range`; padding elements must be zero, as ParamStore keeps them.
std::vector<double> square_sums(Device& device, FlatSpan<const float> gradients, FlatRange range);

// Sum of squares from the terms of ascending, disjoint ranges, concatenated; what lies between them
// counts as zeros. Infinite or not a number if and only if some gradient is.
double sum_of_squares(std::span<const FlatRange> ranges, std::span<const double> terms);

// min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0 (clipping off).
double clip_coefficient(double norm, double max_norm);

struct NonFinite {
  std::string name;     // of the parameter
  int64_t element = 0;  // within it
  float value = 0;
};
// The first gradient of `range` that is infinite or not a number.
std::optional<NonFinite> first_non_finite(std::span<const Param> params,
                                          FlatSpan<const float> gradients, FlatRange range);

}  // namespace shoestring
