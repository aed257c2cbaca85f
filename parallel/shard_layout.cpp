#include "parallel/shard_layout.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Extents = std::vector<ParamExtent>;

void check_params(FlatRange range, const Extents& params) {
  int64_t end = range.begin;
  for (size_t i = 0; i < params.size(); ++i) {
    const ParamExtent& p = params[i];
    if (p.begin < end || p.end < p.begin || p.end > range.end) {
      fail(cat("parameter ", i, " at elements ", p.begin, " to ", p.end,
               " overlaps its neighbour or leaves the elements ", range.begin, " to ", range.end));
    }
    end = p.end;
  }
}

// The allowed border nearest to `wanted`, in granules from `origin`. Does not decrease when
// `wanted` grows.
int64_t border_near(int64_t wanted, int64_t origin, FlatRange range, const Extents& params) {
  const int64_t g = ShardLayout::granule;
  const int64_t border =
      std::clamp(origin + (wanted - origin + g / 2) / g * g, range.begin, range.end);
  const auto after = std::upper_bound(params.begin(), params.end(), border,
                                      [](int64_t x, const ParamExtent& p) { return x < p.begin; });
  if (after == params.begin()) return border;
  const ParamExtent& p = *(after - 1);  // the last that begins at or before the border
  if (!p.whole || border == p.begin || border >= p.end) return border;
  int64_t low = p.begin, high = after == params.end() ? range.end : after->begin;
  for (const int64_t cut : p.cuts) {
    if (cut <= border) low = std::max(low, cut);
    if (cut >= border) high = std::min(high, cut);
  }
  return border - low <= high - border ? low : high;
}

// What the elements [begin, end) weigh: their part of their parameters' cost.
double cost_of(FlatRange range, const Extents& params) {
  double sum = 0;
  for (const ParamExtent& p : params) {
    const int64_t common = std::min(range.end, p.end) - std::max(range.begin, p.begin);
    if (common > 0 && p.cost > 0) {
      sum += p.cost * static_cast<double>(common) / static_cast<double>(p.end - p.begin);
    }
  }
  return sum;
}

// The element of `range` up to which it costs `wanted`.
int64_t element_at_cost(double wanted, FlatRange range, const Extents& params) {
  for (const ParamExtent& p : params) {
    const FlatRange part{std::max(range.begin, p.begin), std::min(range.end, p.end)};
    if (part.elements() <= 0 || p.cost <= 0) continue;
    const double each = p.cost / static_cast<double>(p.end - p.begin);
    const double here = each * static_cast<double>(part.elements());
    if (wanted <= here) return part.begin + static_cast<int64_t>(wanted / each);
    wanted -= here;
  }
  return range.end;
}

// A large parameter without cost beside one with cost: they are shared out by different measures,
// so that a border between buckets stands between them.
bool parts_kinds(const Extents& params, size_t i, int64_t smallest) {
  const ParamExtent &a = params[i], &b = params[i + 1];
  if ((a.cost > 0) == (b.cost > 0)) return false;
  const ParamExtent& free = a.cost > 0 ? b : a;
  return free.end - free.begin >= smallest;
}

}  // namespace

ShardLayout::ShardLayout(FlatRange range, const Extents& params, int64_t bucket_elements, int ranks)
    : origin_(range.begin), ranks_(ranks) {
  check(range.elements() >= 0 && bucket_elements > 0 && ranks > 0,
        "a layout of no ranks or no buckets");
  check_params(range, params);
  const int64_t step = std::max(bucket_elements / granule * granule, granule);
  std::vector<int64_t> borders;
  for (int64_t at = range.begin + step; at < range.end; at += step) {
    borders.push_back(border_near(at, origin_, range, params));
  }
  for (size_t i = 0; i + 1 < params.size(); ++i) {
    if (parts_kinds(params, i, ranks * granule)) borders.push_back(params[i + 1].begin);
  }
  borders.push_back(range.begin);
  std::sort(borders.begin(), borders.end());
  Shares shares(ranks);
  int64_t end = range.end;
  for (size_t k = borders.size(); k-- > 0;) {
    const int64_t begin = std::max(borders[k], range.begin);
    if (begin >= end) continue;  // a whole parameter reaches over this border
    add({begin, end}, params, shares);
    end = begin;
  }
}

ShardLayout::ShardLayout(const std::vector<FlatRange>& buckets, const Extents& params, int ranks)
    : ranks_(ranks) {
  check(ranks > 0, "a layout of no ranks");
  if (buckets.empty()) return;
  origin_ = buckets.front().begin;
  check_params({buckets.front().begin, buckets.back().end}, params);
  Shares shares(ranks);
  for (size_t b = buckets.size(); b-- > 0;) {
    if (buckets[b].elements() < 1 || (b > 0 && buckets[b - 1].end != buckets[b].begin)) {
      fail(cat("bucket ", b, " at elements ", buckets[b].begin, " to ", buckets[b].end,
               " is empty or does not follow the one before it"));
    }
    add(buckets[b], params, shares);
  }
}

// Gives each rank what it lacks to an equal share of all buckets so far, as far as borders allow:
// a rank that got no matrix of this bucket gets one of the next.
void ShardLayout::add(FlatRange range, const Extents& params, Shares& shares) {
  const double cost = cost_of(range, params);
  const bool by_cost = cost > 0;
  std::vector<double>& owned = by_cost ? shares.cost : shares.elements;
  const double here = by_cost ? cost : static_cast<double>(range.elements());
  const double total = std::accumulate(owned.begin(), owned.end(), 0.0) + here;
  std::vector<double> lacking;
  for (const double o : owned) lacking.push_back(std::max(0.0, total / ranks_ - o));
  const double sum = std::accumulate(lacking.begin(), lacking.end(), 0.0);
  Bucket bucket{range, {}};
  double before = 0;
  int64_t at = range.begin;
  for (size_t r = 0; r < lacking.size(); ++r) {
    before += lacking[r];
    const double part = here * before / sum;
    const int64_t wanted =
        by_cost ? element_at_cost(part, range, params) : range.begin + static_cast<int64_t>(part);
    const bool last = r + 1 == lacking.size();
    const int64_t border =
        last ? range.end : std::clamp(border_near(wanted, origin_, range, params), at, range.end);
    bucket.counts.push_back(border - at);
    shares.elements[r] += static_cast<double>(border - at);
    shares.cost[r] += cost_of({at, border}, params);
    at = border;
  }
  buckets_.push_back(std::move(bucket));
}

FlatRange ShardLayout::piece(const Bucket& bucket, int rank) const {
  const auto first = bucket.counts.begin();
  const int64_t begin = std::accumulate(first, first + rank, bucket.range.begin);
  return {begin, begin + bucket.counts.at(static_cast<size_t>(rank))};
}

std::vector<ShardLayout::Piece> ShardLayout::pieces() const {
  std::vector<Piece> result;
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    for (int r = 0; r < ranks_; ++r) {
      const FlatRange range = piece(*bucket, r);
      if (range.elements() > 0) result.push_back({range, r});
    }
  }
  return result;
}

std::vector<FlatRange> ShardLayout::owned(int rank) const {
  std::vector<FlatRange> result;
  for (const Piece& p : pieces()) {
    if (p.rank != rank) continue;
    if (!result.empty() && result.back().end == p.range.begin) {
      result.back().end = p.range.end;
    } else {
      result.push_back(p.range);
    }
  }
  return result;
}

}  // namespace shoestring
