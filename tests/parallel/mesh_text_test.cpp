#include <gtest/gtest.h>

#include <array>

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
  const std::string less = mesh.text(std::array{MeshGroup::mirror, MeshGroup::dp_shard});
  EXPECT_EQ(less.find("mirror  "), std::string::npos) << less;
  EXPECT_EQ(less.find("\ndp_shard  "), std::string::npos) << less;
  EXPECT_NE(less.find("\n      dp      2 "), std::string::npos) << less;
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

TEST(MeshText, ManyRanksAreFoldedByNodeAndStage) {
  const Mesh sixteen({.pp = 2}, 16);
  EXPECT_EQ(sixteen.folded_text(), sixteen.text());
  const Mesh mesh({.tp = 2, .pp = 2, .ep = 4, .ranks_per_node = 8}, 32);
  const std::string text = mesh.folded_text();
  EXPECT_EQ(
      text.substr(text.find("ranks  node  pp")),
      "ranks  node  pp  dp_replicate  dp_shard  cp   tp  edp_replicate  edp_shard   ep  etp\n"
      "  0-7     0   0             0       0-3   0  0-1              0        0-1  0-3    0\n"
      " 8-15     1   0             0       4-7   0  0-1              0        2-3  0-3    0\n"
      "16-23     2   1             0       0-3   0  0-1              0        0-1  0-3    0\n"
      "24-31     3   1             0       4-7   0  0-1              0        2-3  0-3    0\n");
  EXPECT_TRUE(mesh.text().starts_with(text.substr(0, text.find("ranks  node  pp"))));
  // Stages side by side: their ranks are not neighbours.
  const std::string apart = Mesh({.pp = 8, .order = "pp"}, 32).folded_text();
  EXPECT_NE(apart.find("\n 0,8,16,24     0   0 "), std::string::npos) << apart;
  const std::string far = Mesh({.pp = 2, .order = "pp"}, 32).folded_text();
  EXPECT_NE(far.find("\n0..30     0   0 "), std::string::npos) << far;
  const std::string many = Mesh({.ranks_per_node = 1}, 40).folded_text();
  EXPECT_NE(many.find("\n   15    15   0 "), std::string::npos) << many;
  EXPECT_TRUE(many.ends_with("\n... and 24 rows more\n")) << many;
}

}  // namespace
}  // namespace shoestring
