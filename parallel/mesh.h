#pragma once
// Who stands where among the ranks, and who talks to whom.
//
// Two grids over the same ranks, with the same pipeline groups (folding: Megatron Core MoE, 2025,
// arXiv 2504.14960). Axes from the fastest:
//
//   dense    tp x cp x dp_shard x dp_replicate x pp
//   experts  etp x ep x edp_shard x edp_replicate x pp
//
// with tp cp dp_shard dp_replicate = etp ep edp_shard edp_replicate, the ranks of a pipeline stage.
// Both count these ranks in the order tp, cp, dp_shard, dp_replicate, so the ranks of an expert
// group ascend with the tokens they hold. MeshConfig::order only says which rank of the world
// takes which place: it moves traffic between and inside nodes and changes no result.
//
//   group          its ranks differ in         what for
//   tp             tp                          tensor and sequence parallel
//   cp             cp                          context parallel
//   sequence       tp, cp                      statistics of one sequence
//   dp_shard       dp_shard                    ZeRO
//   dp_replicate   dp_replicate                sums of shards between copies
//   dp             dp_shard, dp_replicate      data ranks: who has which micro-batches
//   dp_cp          cp, dp_shard, dp_replicate  gradients of dense parameters
//   stage          tp, cp, dp                  statistics of tokens: expert counts
//   pp             pp                          pipeline
//   ends           pp, the first and the last  tied embeddings; other ranks have none
//   mirror         pp, stage s and pp - 1 - s  copies of a stage in DualPipe
//   etp            etp                         tensor parallel inside experts
//   ep             ep                          dispatch and combine
//   edp            edp_shard, edp_replicate    gradients of routed experts
//   edp_shard, edp_replicate                   ZeRO of routed experts
//
// A group's ranks are numbered by these coordinates, the first one fastest, so sums in rank order
// do not depend on the order either.

#include <array>
#include <span>
#include <string>
#include <vector>

#include "parallel/mesh_config.h"

namespace shoestring {

enum class MeshGroup : uint8_t {
  tp,
  cp,
  sequence,
  dp_shard,
  dp_replicate,
  dp,
  dp_cp,
  stage,
  pp,
  ends,
  mirror,
  etp,
  ep,
  edp,
  edp_shard,
  edp_replicate
};
constexpr size_t mesh_groups = 16;
std::string_view name_of(MeshGroup group);
std::array<MeshGroup, mesh_groups> all_mesh_groups();

// A rank's coordinates in both grids.
class MeshPlace {
 public:
  int operator[](MeshAxis axis) const { return at_[static_cast<size_t>(axis)]; }
  int& operator[](MeshAxis axis) { return at_[static_cast<size_t>(axis)]; }
  bool operator==(const MeshPlace&) const = default;

 private:
  std::array<int, mesh_axes> at_ = {};
};

// How the groups of one kind lie on the machines.
struct NodeShape {
  int nodes = 1;     // that a group touches, at most
  int per_node = 1;  // of its ranks on one of them, at most
  // Every group has `per_node` ranks on each of `nodes` nodes: two-level collectives are possible.
  bool even = true;
  // Even, and in every group a node's ranks follow one another.
  bool together = true;
  // May tokens cross between nodes first and then spread inside them (parallel/expert_plan.h)?
  bool two_levels() const { return together && nodes > 1 && per_node > 1; }
  bool inside() const { return nodes == 1; }
};

class Communicator;
class MeshCommunicators;
struct NodeCommunicators;

class Mesh {
 public:
  // Usage errors where the axes do not make up the ranks (with all reasons). What the model asks
  // for is checked before, by parallel/mesh_layouts.h.
  Mesh(const MeshConfig& config, int ranks);

  int ranks() const { return static_cast<int>(places_.size()); }
  const MeshConfig& config() const { return config_; }  // dp_shard filled in
  int extent(MeshAxis axis) const { return extents_[axis]; }

  const MeshPlace& place(int rank) const { return places_.at(static_cast<size_t>(rank)); }
  int dp_index(int rank) const { return index_in(MeshGroup::dp, rank); }  // of 0 .. dp - 1

  // Of the largest group of the kind; they differ for `mirror` with odd pp only.
  int size(MeshGroup group) const;
  // The group's number among those of its kind; negative: the rank is in none (`ends`).
  int color(MeshGroup group, int rank) const;
  int index_in(MeshGroup group, int rank) const;
  // In the order of their indices; empty where the rank is in none.
  std::vector<int> members(MeshGroup group, int rank) const;

  int nodes() const;
  int node(int rank) const { return rank / ranks_per_node(); }
  NodeShape node_shape(MeshGroup group) const;
  // The group's ranks on this rank's node, and those that have this rank's index among the ones on
  // their node. The latter asks for an even shape.
  std::vector<int> inside(MeshGroup group, int rank) const;
  std::vector<int> across(MeshGroup group, int rank) const;

  // Collective over `world`, whose ranks are the mesh's: parallel/mesh_communicators.h.
  MeshCommunicators split(Communicator& world, std::span<const MeshGroup> groups) const;
  MeshCommunicators split(Communicator& world) const;  // all of them
  NodeCommunicators split_by_node(Communicator& world, MeshGroup group) const;

  // "rank 5 (pp 1, tp 1)": the axes with more than one rank. For messages.
  std::string describe(int rank) const;
  // For people: sizes, a row a kind of group (ranks, nodes), a row a rank. `unused`: groups that
  // nothing is sent in, which have no row.
  std::string text(std::span<const MeshGroup> unused = {}) const;
  // The same of at most 16 ranks; of more, a row for each stage of each node instead of each rank,
  // and of these the first 16.
  std::string folded_text(std::span<const MeshGroup> unused = {}) const;

 private:
  int ranks_per_node() const;
  int fold(std::span<const MeshAxis> axes, const MeshPlace& place) const;
  bool blocks_are_nodes(MeshGroup group, const NodeShape& shape) const;
  std::string group_rows(std::span<const MeshGroup> unused) const;
  std::string head(std::span<const MeshGroup> unused) const;
  std::vector<MeshAxis> shown_axes() const;
  std::string rank_rows() const;
  std::string folded_rows() const;

  MeshConfig config_;
  AxisOrder order_ = default_order;
  MeshPlace extents_;
  std::vector<MeshPlace> places_;  // by rank
};

}  // namespace shoestring
