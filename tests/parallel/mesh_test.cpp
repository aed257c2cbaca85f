#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "core/check.h"
#include "core/text.h"
#include "tests/parallel/random_mesh.h"

namespace shoestring {
namespace {

using enum MeshAxis;
using Members = std::vector<int>;

constexpr std::array<MeshAxis, 9> all_axes = {tp,  cp, dp_shard,  dp_replicate, pp,
                                              etp, ep, edp_shard, edp_replicate};

// All groups of a kind, each once, by their first ranks.
std::vector<Members> groups_of(const Mesh& mesh, MeshGroup group) {
  std::set<Members> seen;
  std::vector<Members> groups;
  for (int r = 0; r < mesh.ranks(); ++r) {
    const Members members = mesh.members(group, r);
    if (!members.empty() && seen.insert(members).second) groups.push_back(members);
  }
  return groups;
}

Mesh mesh_of(const MeshConfig& config) {
  return Mesh(config, static_cast<int>(config.named_ranks()));
}

// The axes in which the ranks of a group differ, said once more and apart from the table.
std::set<MeshAxis> varying_axes(MeshGroup group) {
  switch (group) {
    case MeshGroup::tp:
      return {tp};
    case MeshGroup::cp:
      return {cp};
    case MeshGroup::sequence:
      return {tp, cp};
    case MeshGroup::dp_shard:
      return {dp_shard};
    case MeshGroup::dp_replicate:
      return {dp_replicate};
    case MeshGroup::dp:
      return {dp_shard, dp_replicate};
    case MeshGroup::dp_cp:
      return {cp, dp_shard, dp_replicate};
    case MeshGroup::stage:
      return {tp, cp, dp_shard, dp_replicate};
    case MeshGroup::pp:
    case MeshGroup::ends:
    case MeshGroup::mirror:
      return {pp};
    case MeshGroup::etp:
      return {etp};
    case MeshGroup::ep:
      return {ep};
    case MeshGroup::edp:
      return {edp_shard, edp_replicate};
    case MeshGroup::edp_shard:
      return {edp_shard};
    case MeshGroup::edp_replicate:
      return {edp_replicate};
  }
  return {};
}
bool of_experts(MeshGroup group) { return group >= MeshGroup::etp; }

// Same coordinates in every axis of the grid that is not varying; and the pairs of the two groups
// that are parts of pipelines.
bool belong_together(const Mesh& mesh, MeshGroup group, int a, int b) {
  const std::set<MeshAxis> varying = varying_axes(group);
  const MeshPlace &x = mesh.place(a), &y = mesh.place(b);
  for (MeshAxis axis : all_axes) {
    const bool expert_axis = axis >= etp;
    if (axis != pp && expert_axis != of_experts(group)) continue;
    if (!varying.contains(axis) && x[axis] != y[axis]) return false;
  }
  const int last = mesh.extent(pp) - 1;
  const auto at_end = [&](const MeshPlace& p) { return p[pp] == 0 || p[pp] == last; };
  if (group == MeshGroup::ends) return at_end(x) && at_end(y);
  if (group == MeshGroup::mirror) return x[pp] == y[pp] || x[pp] + y[pp] == last;
  return true;
}

void expect_sound_group(const Mesh& mesh, MeshGroup group) {
  SCOPED_TRACE(cat("group ", name_of(group)));
  std::map<int, Members> by_color;
  int largest = 0;
  for (int r = 0; r < mesh.ranks(); ++r) {
    const Members members = mesh.members(group, r);
    largest = std::max(largest, static_cast<int>(members.size()));
    const int color = mesh.color(group, r);
    if (color < 0) {
      ASSERT_EQ(group, MeshGroup::ends);
      ASSERT_TRUE(members.empty());
      ASSERT_FALSE(belong_together(mesh, group, r, r));
      continue;
    }
    ASSERT_TRUE(by_color.emplace(color, members).first->second == members);
    for (int other = 0; other < mesh.ranks(); ++other) {
      const bool in = std::find(members.begin(), members.end(), other) != members.end();
      ASSERT_EQ(in, belong_together(mesh, group, r, other)) << r << " and " << other;
    }
    const auto index = static_cast<size_t>(mesh.index_in(group, r));
    ASSERT_LT(index, members.size());
    ASSERT_EQ(members[index], r);
    if (group != MeshGroup::mirror) {
      ASSERT_EQ(members.size(), static_cast<size_t>(mesh.size(group)));
    }
  }
  ASSERT_EQ(largest, mesh.size(group));
  // Different colors, different ranks: with the above, every rank is in exactly one group.
  std::set<int> seen;
  for (const auto& [color, members] : by_color) {
    for (int r : members) ASSERT_TRUE(seen.insert(r).second) << r;
  }
  if (group != MeshGroup::ends) {
    ASSERT_EQ(seen.size(), static_cast<size_t>(mesh.ranks()));
  }
}

TEST(Mesh, EveryRankIsInOneGroupOfEachKind) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 60; ++i) {
    const MeshConfig config = random_config(random);
    const Mesh mesh = mesh_of(config);
    for (MeshGroup group : all_mesh_groups()) expect_sound_group(mesh, group);
    if (HasFatalFailure()) FAIL() << mesh.text();
  }
}

// The definition of folding, from the dense coordinates alone.
TEST(Mesh, ExpertsFoldOverTheRanksOfAStage) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 100; ++i) {
    const MeshConfig c = random_config(random);
    const Mesh mesh = mesh_of(c);
    const int64_t edp = c.stage_ranks() / c.ep / c.etp;
    EXPECT_EQ(mesh.size(MeshGroup::edp), edp);
    EXPECT_EQ(mesh.size(MeshGroup::etp) * mesh.size(MeshGroup::ep) * mesh.size(MeshGroup::edp),
              mesh.size(MeshGroup::stage));
    EXPECT_EQ(mesh.extent(edp_replicate), std::gcd(edp, c.dp_replicate));
    std::set<std::array<int, 5>> places;
    for (int r = 0; r < mesh.ranks(); ++r) {
      const MeshPlace& p = mesh.place(r);
      const int64_t data = p[dp_shard] + c.dp_shard * p[dp_replicate];
      const int64_t lane = p[tp] + c.tp * (p[cp] + c.cp * data);
      ASSERT_EQ(mesh.index_in(MeshGroup::stage, r), lane);
      ASSERT_EQ(mesh.dp_index(r), data);
      ASSERT_EQ(p[etp], lane % c.etp);
      ASSERT_EQ(p[ep], lane / c.etp % c.ep);
      ASSERT_EQ(mesh.index_in(MeshGroup::edp, r), lane / c.etp / c.ep);
      ASSERT_TRUE(places.insert({p[tp], p[cp], p[dp_shard], p[dp_replicate], p[pp]}).second);
    }
  }
}

// Ranks with the same place in the expert grid but for pp are the ranks of one pipeline.
TEST(Mesh, BothGridsHaveTheSamePipelines) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 60; ++i) {
    const Mesh mesh = mesh_of(random_config(random));
    for (int r = 0; r < mesh.ranks(); ++r) {
      Members same;
      for (int other = 0; other < mesh.ranks(); ++other) {
        const MeshPlace &a = mesh.place(r), &b = mesh.place(other);
        bool equal = true;
        for (MeshAxis axis : {etp, ep, edp_shard, edp_replicate}) equal &= a[axis] == b[axis];
        if (equal) same.push_back(other);
      }
      Members pipeline = mesh.members(MeshGroup::pp, r);
      std::sort(pipeline.begin(), pipeline.end());
      ASSERT_EQ(same, pipeline);
    }
  }
}

int rank_at(const Mesh& mesh, const MeshPlace& place) {
  for (int r = 0; r < mesh.ranks(); ++r) {
    if (mesh.place(r) == place) return r;
  }
  return -1;
}

// Groups, their order and everybody's coordinates are the same; only the ranks' numbers change.
TEST(Mesh, TheOrderOnlyMovesPlaces) {
  std::mt19937_64 random(4);
  for (int i = 0; i < 60; ++i) {
    MeshConfig config = random_config(random);
    const Mesh mesh = mesh_of(config);
    config.order = random_order(random);
    const Mesh moved = mesh_of(config);
    for (int r = 0; r < mesh.ranks(); ++r) {
      const int to = rank_at(moved, mesh.place(r));
      ASSERT_EQ(moved.place(to), mesh.place(r));
      for (MeshGroup group : all_mesh_groups()) {
        Members members = mesh.members(group, r);
        for (int& m : members) m = rank_at(moved, mesh.place(m));
        ASSERT_EQ(moved.members(group, to), members) << name_of(group);
      }
    }
  }
}

TEST(Mesh, TheInnermostAxisHasNeighbours) {
  for (std::string_view first : {"tp", "cp", "dp_shard", "dp_replicate", "pp"}) {
    const Mesh mesh = mesh_of(
        {.tp = 2, .cp = 2, .pp = 2, .dp_shard = 2, .dp_replicate = 2, .order = std::string(first)});
    for (MeshGroup group : all_mesh_groups()) {
      if (name_of(group) == first) {
        EXPECT_EQ(mesh.members(group, 0), (Members{0, 1}));
      }
    }
  }
}

// The example that Megatron-LM's source documents: 16 ranks, tp 2, pp 4.
TEST(Mesh, TheDefaultOrderIsTheUsualOne) {
  const Mesh mesh = mesh_of({.tp = 2, .pp = 4, .dp_shard = 2});
  EXPECT_EQ(
      groups_of(mesh, MeshGroup::tp),
      (std::vector<Members>{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}));
  EXPECT_EQ(
      groups_of(mesh, MeshGroup::dp),
      (std::vector<Members>{{0, 2}, {1, 3}, {4, 6}, {5, 7}, {8, 10}, {9, 11}, {12, 14}, {13, 15}}));
  EXPECT_EQ(groups_of(mesh, MeshGroup::pp),
            (std::vector<Members>{{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}));
  EXPECT_EQ(groups_of(mesh, MeshGroup::ends),
            (std::vector<Members>{{0, 12}, {1, 13}, {2, 14}, {3, 15}}));
  EXPECT_EQ(
      groups_of(mesh, MeshGroup::mirror),
      (std::vector<Members>{{0, 12}, {1, 13}, {2, 14}, {3, 15}, {4, 8}, {5, 9}, {6, 10}, {7, 11}}));
}

TEST(Mesh, SixtyFourRanks) {
  // A small DeepSeek-V3: pipelines of 4, experts over 8 of the 16 data ranks.
  const Mesh mesh({.pp = 4, .ep = 8, .ranks_per_node = 4}, 64);
  EXPECT_EQ(mesh.extent(dp_shard), 16);
  EXPECT_EQ(mesh.nodes(), 16);
  EXPECT_EQ(mesh.members(MeshGroup::ep, 21), (Members{16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(mesh.members(MeshGroup::edp, 21), (Members{21, 29}));
  EXPECT_EQ(mesh.members(MeshGroup::pp, 21), (Members{5, 21, 37, 53}));
  EXPECT_EQ(mesh.members(MeshGroup::mirror, 21), (Members{21, 37}));
  EXPECT_TRUE(mesh.members(MeshGroup::ends, 21).empty());
  for (MeshGroup group : all_mesh_groups()) expect_sound_group(mesh, group);
  // With tensor and context ranks inside: ep takes its ranks from all three axes.
  const Mesh folded({.tp = 2, .cp = 2, .pp = 2, .dp_replicate = 2, .ep = 4, .etp = 2}, 64);
  EXPECT_EQ(folded.members(MeshGroup::etp, 13), (Members{12, 13}));
  EXPECT_EQ(folded.members(MeshGroup::ep, 13), (Members{9, 11, 13, 15}));
  EXPECT_EQ(folded.members(MeshGroup::edp, 13), (Members{5, 13, 21, 29}));
  EXPECT_EQ(folded.members(MeshGroup::edp_shard, 13), (Members{5, 13}));
  EXPECT_EQ(folded.members(MeshGroup::edp_replicate, 13), (Members{13, 29}));
  EXPECT_EQ(folded.members(MeshGroup::dp_cp, 13),
            (Members{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31}));
  for (MeshGroup group : all_mesh_groups()) expect_sound_group(folded, group);
}

// DeepSeek-V3's own layout: 2,048 ranks on nodes of 8, PP 16, EP 64 over 8 nodes.
TEST(Mesh, NodesThatAGroupSpans) {
  const Mesh mesh({.pp = 16, .ep = 64, .ranks_per_node = 8}, 2048);
  EXPECT_EQ(mesh.nodes(), 256);
  const NodeShape shape = mesh.node_shape(MeshGroup::ep);
  EXPECT_EQ(shape.nodes, 8);
  EXPECT_EQ(shape.per_node, 8);
  EXPECT_TRUE(shape.even);
  EXPECT_FALSE(shape.inside());
  const int rank = 128 + 64 + 19;
  EXPECT_EQ(mesh.inside(MeshGroup::ep, rank), (Members{208, 209, 210, 211, 212, 213, 214, 215}));
  EXPECT_EQ(mesh.across(MeshGroup::ep, rank), (Members{195, 203, 211, 219, 227, 235, 243, 251}));
  EXPECT_EQ(mesh.node_shape(MeshGroup::edp).nodes, 2);
  EXPECT_EQ(mesh.node_shape(MeshGroup::pp).nodes, 16);
  EXPECT_TRUE(mesh.node_shape(MeshGroup::tp).inside());
}

// Two machines of four. Pipeline ranks innermost leave an expert group's ranks in runs by machine;
// where the group's first axis is outermost its machines alternate, and tokens go in one level.
TEST(Mesh, NodesThatAlternateInAGroupAreNotTogether) {
  const auto shape_of = [](const std::string& order) {
    MeshConfig config;
    config.tp = 2, config.dp_shard = 2, config.pp = 2, config.ep = 4;
    config.order = order;
    config.ranks_per_node = 4;
    return Mesh(config, 8).node_shape(MeshGroup::ep);
  };
  EXPECT_TRUE(shape_of("pp-tp-dp_shard").two_levels());
  const NodeShape alternating = shape_of("pp-dp_shard-tp");
  EXPECT_TRUE(alternating.even);
  EXPECT_EQ(alternating.nodes, 2);
  EXPECT_FALSE(alternating.together);
  EXPECT_FALSE(alternating.two_levels());
}

// Every rank of a group is reached by one step inside a node and one across, exactly once.
TEST(Mesh, InsideAndAcrossMakeUpAGroup) {
  std::mt19937_64 random(5);
  int even = 0, uneven = 0;
  for (int i = 0; i < 60; ++i) {
    const Mesh mesh = mesh_of(random_config(random));
    for (MeshGroup group : all_mesh_groups()) {
      if (!mesh.node_shape(group).even) {
        ++uneven;
        EXPECT_THROW(mesh.across(group, 0), Error);
        continue;
      }
      ++even;
      const NodeShape shape = mesh.node_shape(group);
      for (int r = 0; r < mesh.ranks(); ++r) {
        Members members = mesh.members(group, r), reached;
        if (members.empty()) continue;
        const Members here = mesh.inside(group, r);
        ASSERT_EQ(here.size(), static_cast<size_t>(shape.per_node));
        for (int neighbour : here) {
          ASSERT_EQ(mesh.node(neighbour), mesh.node(r));
          const Members there = mesh.across(group, neighbour);
          ASSERT_EQ(there.size(), static_cast<size_t>(shape.nodes));
          reached.insert(reached.end(), there.begin(), there.end());
        }
        std::sort(members.begin(), members.end());
        std::sort(reached.begin(), reached.end());
        ASSERT_EQ(reached, members) << name_of(group);
      }
    }
  }
  EXPECT_GT(even, 100);
  EXPECT_GT(uneven, 5);
}

TEST(Mesh, WhatCannotBeLaidOutIsRefusedWithAllReasons) {
  try {
    Mesh({.tp = 3, .dp_shard = 2, .ep = 4, .ranks_per_node = 3}, 8);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_STREQ(error.what(),
                 "this mesh cannot be laid out:\n"
                 "  dp_shard does not fit: tp 3 x cp 1 x dp_shard 2 x dp_replicate 1 x pp 1 = 6, "
                 "but there are 8 ranks\n"
                 "  ep x etp = 4 does not divide the 6 ranks of a pipeline stage (tp x cp x "
                 "dp_shard x dp_replicate)\n"
                 "  ranks_per_node = 3 does not divide the 8 ranks");
  }
  EXPECT_THROW(Mesh({}, 0), Error);
}

TEST(Mesh, GroupsHaveNames) {
  std::set<std::string_view> names;
  for (MeshGroup group : all_mesh_groups()) names.insert(name_of(group));
  EXPECT_EQ(names.size(), mesh_groups);
}

}  // namespace
}  // namespace shoestring
