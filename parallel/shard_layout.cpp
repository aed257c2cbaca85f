#include "parallel/shard_layout.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

void check_params(int64_t elements, const std::vector<ParamExtent>& params) {
  int64_t end = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    const ParamExtent& p = params[i];
    if (p.begin < end || p.end < p.begin || p.end > elements) {
      fail(cat("parameter ", i, " at elements ", p.begin, " to ", p.end,
               " overlaps its neighbour or leaves the store of ", elements, " elements"));
    }
    end = p.end;
  }
}

// The allowed border nearest to `wanted`. Does not decrease when `wanted` grows.
int64_t border_near(int64_t wanted, int64_t elements, const std::vector<ParamExtent>& params) {
  const int64_t g = ShardLayout::granule;
  const int64_t border = std::clamp<int64_t>((wanted + g / 2) / g * g, 0, elements);
  const auto after = std::upper_bound(params.begin(), params.end(), border,
                                      [](int64_t x, const ParamExtent& p) { return x < p.begin; });
  if (after == params.begin()) return border;
  const ParamExtent& p = *(after - 1);  // the last that begins at or before the border
  if (!p.whole || border == p.begin || border >= p.end) return border;
  const int64_t next = after == params.end() ? elements : after->begin;
  return border - p.begin <= next - border ? p.begin : next;
}

}  // namespace

ShardLayout::ShardLayout(int64_t elements, const std::vector<ParamExtent>& params,
                         int64_t bucket_elements, int ranks)
    : ranks_(ranks) {
  check(elements >= 0 && bucket_elements > 0 && ranks > 0, "a layout of no ranks or no buckets");
  check_params(elements, params);
  const int64_t step = std::max(bucket_elements / granule * granule, granule);
  std::vector<int64_t> owned(static_cast<size_t>(ranks));
  int64_t end = elements;
  for (int64_t at = (elements - 1) / step * step; end > 0; at -= step) {
    const int64_t begin = at <= 0 ? 0 : border_near(at, elements, params);
    if (begin >= end) continue;  // a whole parameter reaches over this border
    Bucket bucket{{begin, end}, {}};
    share_out(bucket, params, owned);
    buckets_.push_back(std::move(bucket));
    end = begin;
  }
}

// Gives each rank what it lacks to an equal share of all buckets so far, as far as borders allow:
// a rank that got no matrix of this bucket gets one of the next.
void ShardLayout::share_out(Bucket& bucket, const std::vector<ParamExtent>& params,
                            std::vector<int64_t>& owned) const {
  const auto [begin, end] = bucket.range;
  const int64_t total =
      std::accumulate(owned.begin(), owned.end(), int64_t{0}) + bucket.range.elements();
  std::vector<double> lacking;
  for (int64_t o : owned) {
    lacking.push_back(std::max(0.0, static_cast<double>(total) / ranks_ - static_cast<double>(o)));
  }
  const double sum = std::accumulate(lacking.begin(), lacking.end(), 0.0);
  double before = 0;
  int64_t at = begin;
  for (size_t r = 0; r < owned.size(); ++r) {
    before += lacking[r];
    const int64_t wanted =
        begin + static_cast<int64_t>(before / sum * static_cast<double>(end - begin));
    const bool last = r + 1 == owned.size();
    const int64_t border = last ? end : std::clamp(border_near(wanted, end, params), at, end);
    bucket.counts.push_back(border - at);
    owned[r] += border - at;
    at = border;
  }
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
