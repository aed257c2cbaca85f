#pragma once
// How a range of the flat stores (core/param.h) is cut: into buckets, the units of reduction, and
// each bucket into one piece a rank, the units of ownership (ZeRO: Rajbhandari et al. 2020,
// arXiv 1910.02054).

#include <cstdint>
#include <vector>

#include "core/param.h"

namespace shoestring {

// A parameter's place in the flat numbering.
struct ParamExtent {
  int64_t begin = 0, end = 0;
  bool whole = false;              // no border may cut it (Muon needs matrices), but at `cuts`:
  std::vector<int64_t> cuts = {};  // ascending, between its matrices, in the flat numbering
  double cost = 0;                 // of its update, in any unit; 0: next to nothing
};

class ShardLayout {
 public:
  // Borders are multiples of this behind the begin of the range, except where that would cut a
  // whole parameter, and at the ends of buckets. Where the range begins changes nothing: tensor
  // ranks have copies of the same experts behind dense parts of other sizes.
  static constexpr int64_t granule = 4096;

  struct Bucket {
    FlatRange range;
    std::vector<int64_t> counts;  // elements of each rank's piece, in rank order
  };
  struct Piece {
    FlatRange range;
    int rank = 0;
  };

  // `params`: ascending and disjoint within `range`. Ranks own nearly equal shares: of the updates'
  // cost in buckets whose parameters have one, of elements in the others. Each bucket has about
  // `bucket_elements`, more where a whole parameter is larger.
  ShardLayout(FlatRange range, const std::vector<ParamExtent>& params, int64_t bucket_elements,
              int ranks);
  // The buckets are given: ascending, one behind the other.
  ShardLayout(const std::vector<FlatRange>& buckets, const std::vector<ParamExtent>& params,
              int ranks);

  // From the end of the range to its begin: the order in which backward finishes. They cover it.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  FlatRange piece(const Bucket& bucket, int rank) const;
  // Ascending; neighbours joined.
  std::vector<FlatRange> owned(int rank) const;
  // All pieces that are not empty, ascending: they cover the range.
  std::vector<Piece> pieces() const;

 private:
  // Of each rank, so far.
  struct Shares {
    explicit Shares(int ranks)
        : elements(static_cast<size_t>(ranks)), cost(static_cast<size_t>(ranks)) {}
    std::vector<double> elements, cost;
  };
  void add(FlatRange range, const std::vector<ParamExtent>& params, Shares& shares);

  int64_t origin_ = 0;  // where the whole range begins
  int ranks_;
  std::vector<Bucket> buckets_;
};

}  // namespace shoestring
