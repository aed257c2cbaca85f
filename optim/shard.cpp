#include "optim/shard.h"

#include <algorithm>

#include "core/text.h"

namespace shoestring {

std::vector<Slice> slices_of(std::span<const Param> params, std::span<const FlatRange> owned) {
  std::vector<Slice> slices;
  int64_t last = 0;
  for (const FlatRange& range : owned) {
    if (range.begin < last || range.end < range.begin) {
      fail(cat("the owned range [", range.begin, ", ", range.end,
               ") is reversed or overlaps the one before it, which ends at ", last));
    }
    last = range.end;
    for (size_t i = 0; i < params.size(); ++i) {
      const Param& p = params[i];
      const int64_t begin = std::max(range.begin, p.offset);
      const int64_t end = std::min(range.end, p.offset + p.elements);
      if (begin >= end) continue;
      slices.push_back({.param = static_cast<int>(i),
                        .begin = begin - p.offset,
                        .end = end - p.offset,
                        .flat = {begin, end}});
    }
  }
  return slices;
}

bool updated_by_muon(const ParamInfo& info, const OptimConfig& config) {
  return config.optimizer == "muon" && info.param_class == ParamClass::hidden &&
         info.shape.rank() >= 2;
}

}  // namespace shoestring
