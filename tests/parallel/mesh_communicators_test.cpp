#include "parallel/mesh_communicators.h"

#include <gtest/gtest.h>

#include <random>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "tests/parallel/random_mesh.h"

namespace shoestring {
namespace {

using Members = std::vector<int>;

// The communicator has the members, in their order.
void expect_members(Communicator& communicator, const Members& members, int rank) {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
  // Of the communicator's own size, so that a wrong group fails and does not wait.
  const auto size = static_cast<size_t>(communicator.size());
  const std::vector<int64_t> counts(size, 1);
  const std::vector<int32_t> mine = {rank};
  std::vector<int32_t> all(size);
  communicator.all_gather(view_of(std::span(mine)), counts, buffer_of(std::span(all)), stream);
  stream.synchronize();
  EXPECT_EQ(Members(all.begin(), all.end()), members);
  EXPECT_EQ(all.at(static_cast<size_t>(communicator.rank())), rank);
}

void expect_split(const MeshConfig& config, int ranks) {
  const Mesh mesh(config, ranks);
  SCOPED_TRACE(mesh.text());
  const auto body = [&](Communicator& world) {
    const int rank = world.rank();
    const MeshCommunicators mine = mesh.split(world);
    for (MeshGroup group : all_mesh_groups()) {
      const Members members = mesh.members(group, rank);
      EXPECT_EQ(mine.has(group), !members.empty()) << name_of(group);
      if (mine.has(group)) expect_members(mine[group], members, rank);
    }
    if (!mesh.node_shape(MeshGroup::ep).even) return;
    const NodeCommunicators levels = mesh.split_by_node(world, MeshGroup::ep);
    expect_members(*levels.inside, mesh.inside(MeshGroup::ep, rank), rank);
    expect_members(*levels.across, mesh.across(MeshGroup::ep, rank), rank);
  };
  run_ranks(ranks, body, {.deadline = std::chrono::seconds(60)});
}

TEST(MeshCommunicators, SplitMakesTheGroups) {
  expect_split({}, 1);
  expect_split({.tp = 2}, 2);
  expect_split({.pp = 2, .order = "pp"}, 2);
  expect_split({.ep = 3}, 3);
  expect_split({.pp = 3}, 3);
  expect_split({.tp = 2, .ep = 4, .ranks_per_node = 2}, 4);
  expect_split({.cp = 2, .dp_replicate = 2, .etp = 2}, 4);
  expect_split({.tp = 2, .cp = 2, .pp = 2, .ep = 2, .etp = 2}, 8);
  expect_split({.pp = 4, .ep = 2, .order = "pp-dp_shard", .ranks_per_node = 2}, 8);
  expect_split({.tp = 2, .pp = 2, .dp_replicate = 2, .ep = 4, .ranks_per_node = 4}, 16);
}

TEST(MeshCommunicators, SplitMakesTheGroupsOfRandomMeshes) {
  std::mt19937_64 random(6);
  for (int i = 0; i < 12; ++i) {
    const MeshConfig config = random_config(random, 16);
    expect_split(config, static_cast<int>(config.named_ranks()));
  }
}

// All groups of 64 ranks, as at the start of a run.
TEST(MeshCommunicators, SixtyFourRanks) {
  expect_split({.tp = 2, .cp = 2, .pp = 4, .ep = 4, .etp = 2, .ranks_per_node = 8}, 64);
}

TEST(MeshCommunicators, OnlyTheGroupsAskedForAreSplit) {
  const Mesh mesh({.tp = 2}, 4);
  run_ranks(4, [&](Communicator& world) {
    const std::array<MeshGroup, 2> wanted = {MeshGroup::tp, MeshGroup::dp_cp};
    const MeshCommunicators mine = mesh.split(world, wanted);
    EXPECT_TRUE(mine.has(MeshGroup::dp_cp));
    EXPECT_FALSE(mine.has(MeshGroup::ep));
    EXPECT_THROW(mine[MeshGroup::ep], Error);
  });
  run_ranks(2, [&](Communicator& world) { EXPECT_THROW(mesh.split(world), Error); });
}

}  // namespace
}  // namespace shoestring
