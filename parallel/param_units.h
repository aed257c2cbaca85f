#pragma once
// Units of parameters: what is gathered, reduced and let go together where gradients or weights are
// sharded (ZeRO stages 2 and 3). A unit is what one segment of a tape reads: attention with the
// norm before it, the rest of a block, the embedding, the head with its norm.

#include <functional>
#include <string>
#include <vector>

#include "parallel/shard_layout.h"

namespace shoestring {

struct ParamUnit {
  std::string name;         // of the segment: "layers.3.attention"
  int first = 0, last = 0;  // parameters [first, last)
  FlatRange range;          // with the padding behind the last one
  // More than one segment reads it (a tied embedding, all that prediction modules use too): it
  // stays gathered from a micro-batch's first use to its last.
  bool held = false;
};

// The segment that reads a parameter of this name (core/model/parameters.h). Other names are units
// of what stands before their last point.
std::string segment_of(const ParamStore& store, const std::string& name);

// Of the parameters [first, last) of a store, in their order. Parameters of one segment that are
// not neighbours are several units.
std::vector<ParamUnit> units_of(const ParamStore& store, int first, int last);
std::vector<FlatRange> ranges_of(const std::vector<ParamUnit>& units);

// The store's parameters [first, last) as DataParallel and ShardLayout want them (-1: all from
// `first` on).
struct ExtentOptions {
  int first = 0, last = -1;
  // Which may not be cut but between the matrices fused in them; none by default.
  std::function<bool(const Param&)> whole = nullptr;
  std::function<double(const Param&)> cost = nullptr;  // of its update (optim/muon.h)
};
std::vector<ParamExtent> extents_of(const ParamStore& store, const ExtentOptions& options);
std::vector<ParamExtent> extents_of(const ParamStore& store,
                                    const std::function<bool(const Param&)>& whole = nullptr);

}  // namespace shoestring
