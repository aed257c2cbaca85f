#include "optim/shard.h"

#include <algorithm>

#include "core/text.h"
#include "optim/norm.h"

namespace shoestring {
namespace {

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

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

FlatRange shard_range(std::span<const Param> params, const OptimConfig& config, int rank,
                      int ranks) {
  check(ranks >= 1 && rank >= 0 && rank < ranks, "a shard's rank is outside its group");
  const int64_t elements = params.empty() ? 0
                                          : round_up(params.back().offset + params.back().elements,
                                                     ParamStore::alignment);
  auto border = [&](int64_t index) {
    if (index == ranks) return elements;
    const int64_t even = elements / ranks * index;
    const int64_t at = std::min(elements, round_up(even, norm_block));
    for (const Param& p : params) {
      const int64_t end = round_up(p.offset + p.elements, ParamStore::alignment);
      if (at <= p.offset || at >= end || !updated_by_muon(p.info, config)) continue;
      return at - p.offset < end - at ? p.offset : end;
    }
    return at;
  };
  return {border(rank), border(rank + 1)};
}

}  // namespace shoestring
