#pragma once
// Ranges of the flat element numbering (core/param.h): what a rank owns, cut into parameters.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/flat_span.h"
#include "core/param.h"
#include "optim/config.h"

namespace shoestring {

// The part of one parameter that lies in an owned range.
struct Slice {
  int param = 0;               // index into the parameters
  int64_t begin = 0, end = 0;  // elements within the parameter
  FlatRange flat;
};

// Clips `owned` (ascending, disjoint; anything else is an error) to the parameters; padding between
// parameters belongs to nobody.
std::vector<Slice> slices_of(std::span<const Param> params, std::span<const FlatRange> owned);

// Muon takes hidden parameters of two or more dims; the others are AdamW's.
bool updated_by_muon(const ParamInfo& info, const OptimConfig& config);

}  // namespace shoestring
