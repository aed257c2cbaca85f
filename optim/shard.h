#pragma once
// Ranges of the flat element numbering (core/param.h): what a rank owns, cut into parameters.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/param.h"
#include "optim/config.h"

namespace shoestring {

// Part of a flat store: values[0] is element `first` of the numbering; or, with `ranges`, these
// ranges of it (ascending), one behind the other. Shards' buffers and the whole store (first = 0)
// look the same to the optimiser.
template <class T>
struct FlatSpan {
  std::span<T> values = {};
  int64_t first = 0;
  std::span<const FlatRange> ranges = {};

  bool empty() const { return values.empty(); }
  // Pointer to the element `range.begin`; the whole range must lie inside, and in one of `ranges`.
  T* at(FlatRange range) const {
    int64_t before = 0;
    for (const FlatRange& r : ranges) {
      if (range.begin >= r.begin && range.end <= r.end && range.begin < r.end) {
        return values.data() + before + (range.begin - r.begin);
      }
      before += r.elements();
    }
    check(ranges.empty() || range.elements() == 0,
          "the optimiser was given shards that do not cover the elements it owns");
    if (!ranges.empty()) return values.data();
    check(range.begin >= first && range.end <= first + static_cast<int64_t>(values.size()),
          "the optimiser was given a span that does not cover the elements it owns");
    return values.data() + (range.begin - first);
  }
};

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
