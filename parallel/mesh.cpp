#include "parallel/mesh.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"

namespace shoestring {
namespace {

using enum MeshAxis;

constexpr std::array<MeshAxis, 5> dense_grid = {tp, cp, dp_shard, dp_replicate, pp};
constexpr std::array<MeshAxis, 5> expert_grid = {etp, ep, edp_shard, edp_replicate, pp};
// The ranks of a stage, from the fastest axis.
constexpr std::span<const MeshAxis> dense_stage = std::span(dense_grid).first(4);
constexpr std::span<const MeshAxis> expert_stage = std::span(expert_grid).first(4);

struct GroupKind {
  MeshGroup group = MeshGroup::tp;
  std::string_view name;
  // The axes in which its ranks differ: `count` of the grid from `first` on.
  std::span<const MeshAxis> grid;
  size_t first = 0, count = 1;
  std::span<const MeshAxis> varying() const { return grid.subspan(first, count); }
};

constexpr std::array<GroupKind, mesh_groups> kinds = {{
    {MeshGroup::tp, "tp", dense_grid, 0, 1},
    {MeshGroup::cp, "cp", dense_grid, 1, 1},
    {MeshGroup::sequence, "sequence", dense_grid, 0, 2},
    {MeshGroup::dp_shard, "dp_shard", dense_grid, 2, 1},
    {MeshGroup::dp_replicate, "dp_replicate", dense_grid, 3, 1},
    {MeshGroup::dp, "dp", dense_grid, 2, 2},
    {MeshGroup::dp_cp, "dp_cp", dense_grid, 1, 3},
    {MeshGroup::stage, "stage", dense_grid, 0, 4},
    {MeshGroup::pp, "pp", dense_grid, 4, 1},
    {MeshGroup::ends, "ends", dense_grid, 4, 1},
    {MeshGroup::mirror, "mirror", dense_grid, 4, 1},
    {MeshGroup::etp, "etp", expert_grid, 0, 1},
    {MeshGroup::ep, "ep", expert_grid, 1, 1},
    {MeshGroup::edp, "edp", expert_grid, 2, 2},
    {MeshGroup::edp_shard, "edp_shard", expert_grid, 2, 1},
    {MeshGroup::edp_replicate, "edp_replicate", expert_grid, 3, 1},
}};

const GroupKind& kind_of(MeshGroup group) {
  const GroupKind& kind = kinds.at(static_cast<size_t>(group));
  check(kind.group == group, "the table of groups is out of order");
  return kind;
}

// The inverse of Mesh::fold.
void unfold(int index, std::span<const MeshAxis> axes, const MeshPlace& extents, MeshPlace& place) {
  for (MeshAxis axis : axes) {
    place[axis] = index % extents[axis];
    index /= extents[axis];
  }
}

MeshConfig checked(const MeshConfig& config, int ranks) {
  check(ranks > 0, "a mesh has at least one rank");
  Complaints complaints;
  if (config.makes(ranks, &complaints)) return config.resolved(ranks);
  std::string text;
  for (const auto& item : complaints.items()) append(text, "\n  ", item.key, " ", item.message);
  fail_usage(cat("this mesh cannot be laid out:", text));
}

MeshPlace extents_of(const MeshConfig& config) {
  MeshPlace extents;
  extents[tp] = static_cast<int>(config.tp);
  extents[cp] = static_cast<int>(config.cp);
  extents[dp_shard] = static_cast<int>(config.dp_shard);
  extents[dp_replicate] = static_cast<int>(config.dp_replicate);
  extents[pp] = static_cast<int>(config.pp);
  extents[etp] = static_cast<int>(config.etp);
  extents[ep] = static_cast<int>(config.ep);
  const int64_t edp = config.stage_ranks() / (config.ep * config.etp);
  // As many copies of the experts' shards as of the dense ones, where that many ranks are left.
  extents[edp_replicate] = static_cast<int>(std::gcd(edp, config.dp_replicate));
  extents[edp_shard] = static_cast<int>(edp) / extents[edp_replicate];
  return extents;
}

}  // namespace

std::string_view name_of(MeshGroup group) { return kind_of(group).name; }

std::array<MeshGroup, mesh_groups> all_mesh_groups() {
  std::array<MeshGroup, mesh_groups> groups = {};
  for (size_t i = 0; i < mesh_groups; ++i) groups[i] = kinds[i].group;
  return groups;
}

Mesh::Mesh(const MeshConfig& config, int ranks)
    : config_(checked(config, ranks)),
      order_(parse_order(config_.order).order),
      extents_(extents_of(config_)),
      places_(static_cast<size_t>(ranks)) {
  for (int r = 0; r < ranks; ++r) {
    MeshPlace& place = places_[static_cast<size_t>(r)];
    unfold(r, order_, extents_, place);
    unfold(fold(dense_stage, place), expert_stage, extents_, place);
  }
}

int Mesh::fold(std::span<const MeshAxis> axes, const MeshPlace& place) const {
  int index = 0;
  for (size_t i = axes.size(); i-- > 0;) index = index * extents_[axes[i]] + place[axes[i]];
  return index;
}

int Mesh::size(MeshGroup group) const {
  const bool pair = group == MeshGroup::ends || group == MeshGroup::mirror;
  if (pair) return std::min(extents_[pp], 2);
  int size = 1;
  for (MeshAxis axis : kind_of(group).varying()) size *= extents_[axis];
  return size;
}

int Mesh::color(MeshGroup group, int rank) const {
  const GroupKind& kind = kind_of(group);
  const MeshPlace& at = place(rank);
  const int last = extents_[pp] - 1, stage = at[pp];
  if (group == MeshGroup::ends && stage != 0 && stage != last) return -1;
  const int below = fold(kind.grid.first(kind.first), at);
  int color = fold(kind.grid.subspan(kind.first + kind.count), at);
  for (MeshAxis axis : kind.grid.first(kind.first)) color *= extents_[axis];
  color += below;
  if (group != MeshGroup::mirror) return color;
  return color * extents_[pp] + std::min(stage, last - stage);
}

int Mesh::index_in(MeshGroup group, int rank) const {
  const int last = extents_[pp] - 1, stage = place(rank)[pp];
  if (group == MeshGroup::ends) return stage == 0 ? 0 : 1;
  if (group == MeshGroup::mirror) return stage > last - stage ? 1 : 0;
  return fold(kind_of(group).varying(), place(rank));
}

std::vector<int> Mesh::members(MeshGroup group, int rank) const {
  std::vector<int> members;
  const int wanted = color(group, rank);
  for (int r = 0; r < ranks() && wanted >= 0; ++r) {
    if (color(group, r) == wanted) members.push_back(r);
  }
  std::sort(members.begin(), members.end(),
            [&](int a, int b) { return index_in(group, a) < index_in(group, b); });
  return members;
}

int Mesh::ranks_per_node() const {
  return config_.ranks_per_node > 0 ? static_cast<int>(config_.ranks_per_node) : ranks();
}

int Mesh::nodes() const { return (ranks() + ranks_per_node() - 1) / ranks_per_node(); }

// Of an even shape: is each run of per_node ranks of a group on one node?
bool Mesh::blocks_are_nodes(MeshGroup group, const NodeShape& shape) const {
  std::map<std::pair<int, int>, int> nodes_of;  // by group and run
  for (int r = 0; r < ranks(); ++r) {
    const int mine = color(group, r);
    if (mine < 0) continue;
    const int run = index_in(group, r) / shape.per_node;
    if (nodes_of.try_emplace({mine, run}, node(r)).first->second != node(r)) return false;
  }
  return true;
}

NodeShape Mesh::node_shape(MeshGroup group) const {
  // Ranks by (group, node), and nodes by group.
  const auto width = static_cast<size_t>(nodes());
  std::vector<int> counts, touched;
  for (int r = 0; r < ranks(); ++r) {
    const int mine = color(group, r);
    if (mine < 0) continue;
    const auto g = static_cast<size_t>(mine);
    if (g >= touched.size()) {
      touched.resize(g + 1);
      counts.resize((g + 1) * width);
    }
    touched[g] += counts[g * width + static_cast<size_t>(node(r))]++ == 0 ? 1 : 0;
  }
  NodeShape shape = {.nodes = *std::max_element(touched.begin(), touched.end()),
                     .per_node = *std::max_element(counts.begin(), counts.end())};
  // Numbers without a group occur (colors of mirror have gaps).
  shape.even = std::all_of(touched.begin(), touched.end(),
                           [&](int n) { return n == 0 || n == shape.nodes; }) &&
               std::all_of(counts.begin(), counts.end(),
                           [&](int n) { return n == 0 || n == shape.per_node; });
  shape.together = shape.even && blocks_are_nodes(group, shape);
  return shape;
}

std::vector<int> Mesh::inside(MeshGroup group, int rank) const {
  std::vector<int> ranks = members(group, rank);
  std::erase_if(ranks, [&](int r) { return node(r) != node(rank); });
  return ranks;
}

std::vector<int> Mesh::across(MeshGroup group, int rank) const {
  if (!node_shape(group).even) {
    fail(cat("the ranks of the group ", name_of(group), " are not spread evenly over the nodes"));
  }
  // Of each node the rank that has as many of the group before it there as this one has here.
  std::vector<int> before(static_cast<size_t>(nodes())), position;
  const std::vector<int> all = members(group, rank);
  int own = 0;
  for (int r : all) {
    position.push_back(before[static_cast<size_t>(node(r))]++);
    if (r == rank) own = position.back();
  }
  std::vector<int> ranks;
  for (size_t i = 0; i < all.size(); ++i) {
    if (position[i] == own) ranks.push_back(all[i]);
  }
  return ranks;
}

}  // namespace shoestring
