#include "parallel/mesh_communicators.h"

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"

namespace shoestring {

Communicator& MeshCommunicators::operator[](MeshGroup group) const {
  if (!has(group)) {
    fail(cat("this rank has no communicator of the group ", name_of(group),
             ": it is in none, or the group was not split"));
  }
  return *slot(group);
}

MeshCommunicators Mesh::split(Communicator& world, std::span<const MeshGroup> groups) const {
  if (world.size() != ranks()) {
    fail(cat("a mesh of ", counted(ranks(), "rank"), " cannot split ", world.name(), ", which has ",
             world.size()));
  }
  MeshCommunicators mine;
  for (MeshGroup group : groups) {
    const int rank = world.rank();
    const SplitName name(name_of(group));
    mine.communicators_[static_cast<size_t>(group)] =
        world.split(color(group, rank), index_in(group, rank));
  }
  return mine;
}

MeshCommunicators Mesh::split(Communicator& world) const { return split(world, all_mesh_groups()); }

NodeCommunicators Mesh::split_by_node(Communicator& world, MeshGroup group) const {
  check(world.size() == ranks(), "a mesh splits the world that it was made for");
  const int rank = world.rank(), mine = color(group, rank), index = index_in(group, rank);
  // The first of its ranks names a set: products of groups and nodes would not fit in a color.
  const int here = mine < 0 ? -1 : inside(group, rank).front();
  const int there = mine < 0 ? -1 : across(group, rank).front();
  NodeCommunicators both;
  {
    const SplitName name(cat(name_of(group), " inside nodes"));
    both.inside = world.split(here, index);
  }
  const SplitName name(cat(name_of(group), " across nodes"));
  both.across = world.split(there, index);
  return both;
}

}  // namespace shoestring
