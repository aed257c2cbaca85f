#pragma once
// A mesh's groups as communicators. Made once, in the order of the list of groups, by all ranks.

#include <array>
#include <memory>

#include "parallel/communicator.h"
#include "parallel/mesh.h"

namespace shoestring {

// One rank's, a group each. They outlive whatever holds references to them.
class MeshCommunicators {
 public:
  // False for groups that were not split, and for `ends` on ranks between the ends.
  bool has(MeshGroup group) const { return slot(group) != nullptr; }
  Communicator& operator[](MeshGroup group) const;

 private:
  friend class Mesh;
  const std::unique_ptr<Communicator>& slot(MeshGroup g) const {
    return communicators_[static_cast<size_t>(g)];
  }
  std::array<std::unique_ptr<Communicator>, mesh_groups> communicators_;
};

// Two levels of one group: its ranks on this node, and those with the same index on other nodes.
// Null on ranks without such a group.
struct NodeCommunicators {
  std::unique_ptr<Communicator> inside, across;
};

}  // namespace shoestring
