#pragma once
// The section `mesh` of a run's config: how many ranks each axis of parallelism has, and which of
// them are neighbours. What the axes mean, and who is in which group: parallel/mesh.h.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/fields.h"

namespace shoestring {

// The axes of the dense grid, then those that only experts have. pp belongs to both grids.
enum class MeshAxis : uint8_t {
  tp,
  cp,
  dp_shard,
  dp_replicate,
  pp,
  etp,
  ep,
  edp_shard,
  edp_replicate
};
constexpr size_t dense_axes = 5, mesh_axes = 9;
// More than any run has had; numbers of ranks, groups and messages stay far within an int.
constexpr int64_t most_ranks = 1 << 16;
std::string_view name_of(MeshAxis axis);

// The dense axes from the innermost (its ranks are neighbours) to the outermost.
using AxisOrder = std::array<MeshAxis, dense_axes>;
constexpr AxisOrder default_order = {MeshAxis::tp, MeshAxis::cp, MeshAxis::dp_shard,
                                     MeshAxis::dp_replicate, MeshAxis::pp};
struct ParsedOrder {
  AxisOrder order = default_order;
  std::string error;  // empty, or what is wrong with the text
};
// "pp-tp": pp innermost, then tp, then the axes that are not named, in the default order.
ParsedOrder parse_order(std::string_view order);

struct MeshConfig {
  int64_t tp = 1, cp = 1, pp = 1;
  int64_t dp_shard = 0, dp_replicate = 1;
  int64_t ep = 1, etp = 1;
  std::string order = "tp-cp-dp_shard-dp_replicate-pp";
  int64_t ranks_per_node = 0;

  template <class V>
  void visit(V&& v) {
    constexpr double most = most_ranks;
    v("tp", tp,
      Field{.help = "tensor parallel ranks: each holds a part of every matrix and of each "
                    "sequence between them",
            .min = 1,
            .max = most});
    v("cp", cp,
      Field{.help = "context parallel ranks: each holds a part of every sequence",
            .min = 1,
            .max = most});
    v("pp", pp,
      Field{.help = "pipeline ranks: each holds some of the layers", .min = 1, .max = most});
    v("dp_shard", dp_shard,
      Field{.help = "data parallel ranks that share out optimiser state, gradients and weights as "
                    "far as the ZeRO stage says; 0: the ranks that the other axes leave",
            .min = 0,
            .max = most});
    v("dp_replicate", dp_replicate,
      Field{.help = "data parallel copies of those shares (hierarchical ZeRO)",
            .min = 1,
            .max = most});
    v("ep", ep,
      Field{.help = "expert parallel ranks: each holds some of the experts; taken from the tensor, "
                    "context and data ranks of a pipeline stage, not in addition to them",
            .min = 1,
            .max = most});
    v("etp", etp,
      Field{.help = "tensor parallel ranks inside each expert, which hold slices of its inner "
                    "width; taken from the same ranks as ep",
            .min = 1,
            .max = most});
    v("order", order,
      Field{.help =
                "axes from the innermost, whose ranks are neighbours and stay inside a node, to "
                "the outermost: tp, cp, dp_shard, dp_replicate and pp joined by \"-\"; those "
                "left out follow in this order. Results do not depend on it"});
    v("ranks_per_node", ranks_per_node,
      Field{.help = "ranks that share a machine, numbered one after the other; 0: all of them",
            .min = 0,
            .max = most});
  }
  // What is wrong whatever the number of ranks and the model.
  void validate(Complaints& c) const;
  // Is every size one that an axis can have?
  bool positive() const;
  // Do the axes make up that many ranks, in both grids and on whole nodes? Complaints, where
  // given, get every reason against it. What the model asks for: parallel/mesh_layouts.h.
  bool makes(int64_t ranks, Complaints* complaints) const;

  // The number of ranks that the axes ask for; dp_shard = 0 counts as 1.
  int64_t named_ranks() const;
  // dp_shard = 0 replaced by what is left of `ranks`; unchanged where the others do not divide it.
  MeshConfig resolved(int64_t ranks) const;
  // Data parallel ranks, and all ranks of one pipeline stage (which experts are spread over).
  int64_t dp() const { return dp_shard * dp_replicate; }
  int64_t stage_ranks() const;

  bool operator==(const MeshConfig&) const = default;
};

}  // namespace shoestring
