#pragma once
// How the flat stores (core/param.h) are cut: into buckets, the units of reduction, and each bucket
// into one piece a rank, the units of ownership (ZeRO: Rajbhandari et al. 2020, arXiv 1910.02054).

#include <cstdint>
#include <vector>

#include "core/param.h"

namespace shoestring {

// A parameter's place in the flat numbering. `whole`: no border may cut it (Muon needs matrices).
struct ParamExtent {
  int64_t begin = 0, end = 0;
  bool whole = false;
};

class ShardLayout {
 public:
  // Borders are multiples of this (blocks of exact norms), except where that would cut a whole
  // parameter: there they are the begin of a parameter.
  static constexpr int64_t granule = 4096;

  struct Bucket {
    FlatRange range;
    std::vector<int64_t> counts;  // elements of each rank's piece, in rank order
  };
  struct Piece {
    FlatRange range;
    int rank = 0;
  };

  // `params`: ascending and disjoint within [0, elements). Ranks own nearly equal shares; each
  // bucket has about `bucket_elements`, more where a whole parameter is larger.
  ShardLayout(int64_t elements, const std::vector<ParamExtent>& params, int64_t bucket_elements,
              int ranks);

  // From the end of the store to its begin: the order in which backward finishes. They cover it.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  FlatRange piece(const Bucket& bucket, int rank) const;
  // Ascending; neighbours joined.
  std::vector<FlatRange> owned(int rank) const;
  // All pieces that are not empty, ascending: they cover the store.
  std::vector<Piece> pieces() const;

 private:
  void share_out(Bucket& bucket, const std::vector<ParamExtent>& params,
                 std::vector<int64_t>& owned) const;

  int ranks_;
  std::vector<Bucket> buckets_;
};

}  // namespace shoestring
