// What a mesh looks like, for people.

#include <algorithm>

#include "core/counted.h"
#include "core/text.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

using enum MeshAxis;

constexpr std::array dense_grid = {tp, cp, dp_shard, dp_replicate, pp};
constexpr std::array expert_grid = {etp, ep, edp_shard, edp_replicate, pp};

using Row = std::vector<std::string>;

// Columns as wide as their longest entry; the last ones may be missing from a row.
std::string table_of(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      append(text, i == 0 ? "" : "  ", std::string(widths[i] - row[i].size(), ' '), row[i]);
    }
    append(text, "\n");
  }
  return text;
}

}  // namespace

std::string Mesh::describe(int rank) const {
  std::string axes;
  for (MeshAxis axis : {pp, dp_replicate, dp_shard, cp, tp, ep, etp}) {
    if (extents_[axis] == 1) continue;
    append(axes, axes.empty() ? "" : ", ", name_of(axis), " ", place(rank)[axis]);
  }
  return cat("rank ", rank, axes.empty() ? "" : cat(" (", axes, ")"));
}

std::string Mesh::group_rows() const {
  std::vector<Row> rows = {{"group", "ranks", "nodes"}};
  for (MeshGroup group : all_mesh_groups()) {
    if (size(group) == 1) continue;
    const NodeShape shape = node_shape(group);
    std::string nodes = shape.inside() ? "1" : cat(shape.nodes, shape.even ? "" : " unevenly");
    rows.push_back({std::string(name_of(group)), cat(size(group)), nodes});
  }
  return table_of(rows);
}

std::string Mesh::rank_rows() const {
  std::vector<Row> rows = {{"rank", "node"}};
  const std::array<MeshAxis, 9> columns = {pp,        dp_replicate, dp_shard, cp, tp, edp_replicate,
                                           edp_shard, ep,           etp};
  const bool experts = extents_[ep] * extents_[etp] > 1;
  const std::span<const MeshAxis> shown = std::span(columns).first(experts ? 9 : 5);
  for (MeshAxis axis : shown) rows[0].emplace_back(name_of(axis));
  for (int r = 0; r < ranks(); ++r) {
    Row row = {cat(r), cat(node(r))};
    for (MeshAxis axis : shown) row.push_back(cat(place(r)[axis]));
    rows.push_back(row);
  }
  return table_of(rows);
}

std::string Mesh::text() const {
  std::string text = cat(counted(ranks(), "rank"), ":");
  const auto add_grid = [&](std::span<const MeshAxis> grid) {
    for (MeshAxis axis : grid) {
      append(text, axis == grid.front() ? " " : " x ", name_of(axis), " ", extents_[axis]);
    }
  };
  add_grid(dense_grid);
  if (extents_[ep] * extents_[etp] > 1) {
    append(text, "\nexperts:");
    add_grid(expert_grid);
  }
  append(text, "\n", counted(nodes(), "node"), " of ",
         counted(std::min(ranks_per_node(), ranks()), "rank"), ", neighbours first along");
  for (MeshAxis axis : order_) append(text, " ", name_of(axis));
  append(text, "\n\n");
  if (ranks() > 1) append(text, group_rows(), "\n");
  return text + rank_rows();
}

}  // namespace shoestring
