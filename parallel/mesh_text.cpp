// What a mesh looks like, for people.

#include <algorithm>
#include <map>
#include <set>

#include "core/counted.h"
#include "core/text.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

using enum MeshAxis;

constexpr size_t folded_above = 16;  // ranks, and rows
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

// "0-3,8-11"; of many pieces only the first and the last number.
std::string text_of_numbers(const std::set<int>& numbers) {
  constexpr int most_pieces = 4;
  std::string text;
  int pieces = 0;
  for (auto at = numbers.begin(); at != numbers.end(); ++pieces) {
    const int first = *at;
    int last = first;
    while (++at != numbers.end() && *at == last + 1) ++last;
    append(text, pieces == 0 ? "" : ",", first == last ? cat(first) : cat(first, "-", last));
  }
  return pieces <= most_pieces ? text : cat(*numbers.begin(), "..", *numbers.rbegin());
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

std::string Mesh::group_rows(std::span<const MeshGroup> unused) const {
  std::vector<Row> rows = {{"group", "ranks", "nodes"}};
  for (MeshGroup group : all_mesh_groups()) {
    const bool used = std::find(unused.begin(), unused.end(), group) == unused.end();
    if (size(group) == 1 || !used) continue;
    const NodeShape shape = node_shape(group);
    std::string nodes = shape.inside() ? "1" : cat(shape.nodes, shape.even ? "" : " unevenly");
    rows.push_back({std::string(name_of(group)), cat(size(group)), nodes});
  }
  return table_of(rows);
}

std::vector<MeshAxis> Mesh::shown_axes() const {
  if (extents_[ep] * extents_[etp] == 1) return {pp, dp_replicate, dp_shard, cp, tp};
  return {pp, dp_replicate, dp_shard, cp, tp, edp_replicate, edp_shard, ep, etp};
}

std::string Mesh::rank_rows() const {
  std::vector<Row> rows = {{"rank", "node"}};
  const std::vector<MeshAxis> shown = shown_axes();
  for (MeshAxis axis : shown) rows[0].emplace_back(name_of(axis));
  for (int r = 0; r < ranks(); ++r) {
    Row row = {cat(r), cat(node(r))};
    for (MeshAxis axis : shown) row.push_back(cat(place(r)[axis]));
    rows.push_back(row);
  }
  return table_of(rows);
}

std::string Mesh::folded_rows() const {
  std::map<std::pair<int, int>, std::vector<int>> parts;  // by node and stage
  for (int r = 0; r < ranks(); ++r) parts[{node(r), place(r)[pp]}].push_back(r);
  std::vector<Row> rows = {{"ranks", "node"}};
  const std::vector<MeshAxis> shown = shown_axes();
  for (MeshAxis axis : shown) rows[0].emplace_back(name_of(axis));
  for (const auto& [part, members] : parts) {
    if (rows.size() > folded_above) break;
    Row row = {text_of_numbers({members.begin(), members.end()}), cat(part.first)};
    for (MeshAxis axis : shown) {
      std::set<int> at;
      for (int r : members) at.insert(place(r)[axis]);
      row.push_back(text_of_numbers(at));
    }
    rows.push_back(row);
  }
  const size_t told = rows.size() - 1;
  std::string text = table_of(rows);
  if (told < parts.size()) append(text, "... and ", counted(parts.size() - told, "row"), " more\n");
  return text;
}

std::string Mesh::head(std::span<const MeshGroup> unused) const {
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
  if (ranks() > 1) append(text, group_rows(unused), "\n");
  return text;
}

std::string Mesh::text(std::span<const MeshGroup> unused) const {
  return head(unused) + rank_rows();
}

std::string Mesh::folded_text(std::span<const MeshGroup> unused) const {
  return ranks() <= static_cast<int>(folded_above) ? text(unused) : head(unused) + folded_rows();
}

}  // namespace shoestring
