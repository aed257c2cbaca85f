#include <gtest/gtest.h>

#include "parallel/mesh.h"

namespace shoestring {
namespace {

TEST(MeshText, ShowsAxesGroupsAndRanks) {
  const Mesh mesh({.tp = 2, .pp = 2, .ep = 4, .order = "tp-pp", .ranks_per_node = 4}, 8);
  EXPECT_EQ(mesh.text(),
            "8 ranks: tp 2 x cp 1 x dp_shard 2 x dp_replicate 1 x pp 2\n"
            "experts: etp 1 x ep 4 x edp_shard 1 x edp_replicate 1 x pp 2\n"
            "2 nodes of 4 ranks, neighbours first along tp pp cp dp_shard dp_replicate\n"
            "\n"
            "   group  ranks  nodes\n"
            "      tp      2      1\n"
            "sequence      2      1\n"
            "dp_shard      2      2\n"
            "      dp      2      2\n"
            "   dp_cp      2      2\n"
            "   stage      4      2\n"
            "      pp      2      1\n"
            "    ends      2      1\n"
            "  mirror      2      1\n"
            "      ep      4      2\n"
            "\n"
            "rank  node  pp  dp_replicate  dp_shard  cp  tp  edp_replicate  edp_shard  ep  etp\n"
            "   0     0   0             0         0   0   0              0          0   0    0\n"
            "   1     0   0             0         0   0   1              0          0   1    0\n"
            "   2     0   1             0         0   0   0              0          0   0    0\n"
            "   3     0   1             0         0   0   1              0          0   1    0\n"
            "   4     1   0             0         1   0   0              0          0   2    0\n"
            "   5     1   0             0         1   0   1              0          0   3    0\n"
            "   6     1   1             0         1   0   0              0          0   2    0\n"
            "   7     1   1             0         1   0   1              0          0   3    0\n");
  EXPECT_EQ(mesh.describe(6), "rank 6 (pp 1, dp_shard 1, tp 0, ep 2)");
  EXPECT_EQ(Mesh({}, 1).text(),
            "1 rank: tp 1 x cp 1 x dp_shard 1 x dp_replicate 1 x pp 1\n"
            "1 node of 1 rank, neighbours first along tp cp dp_shard dp_replicate pp\n"
            "\n"
            "rank  node  pp  dp_replicate  dp_shard  cp  tp\n"
            "   0     0   0             0         0   0   0\n");
  EXPECT_EQ(Mesh({}, 1).describe(0), "rank 0");
  // Nodes of 4 hold one and a third of a group.
  EXPECT_NE(Mesh({.tp = 3, .ranks_per_node = 4}, 12).text().find("      tp      3  2 unevenly\n"),
            std::string::npos);
}

}  // namespace
}  // namespace shoestring
