#include "parallel/comm/rank_environment.h"

#include <gtest/gtest.h>

#include <map>

#include "core/check.h"

namespace shoestring {
namespace {

std::optional<RankPlace> place(const std::map<std::string, std::string>& variables) {
  return rank_place([&](const char* name) -> std::optional<std::string> {
    const auto at = variables.find(name);
    return at == variables.end() ? std::nullopt : std::optional(at->second);
  });
}

TEST(RankEnvironment, NoLauncherNoRank) {
  EXPECT_FALSE(place({}));
  EXPECT_FALSE(place({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}));  // a batch script
}

TEST(RankEnvironment, EachLauncherIsKnown) {
  auto p = place({{"OMPI_COMM_WORLD_RANK", "3"},
                  {"OMPI_COMM_WORLD_SIZE", "4"},
                  {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}});
  ASSERT_TRUE(p);
  EXPECT_EQ(p->rank, 3);
  EXPECT_EQ(p->size, 4);
  EXPECT_EQ(p->local_rank, 1);
  p = place({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}});
  ASSERT_TRUE(p);
  EXPECT_EQ(p->size, 2);
  p = place({{"SLURM_PROCID", "7"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "3"}});
  ASSERT_TRUE(p);
  EXPECT_EQ(p->rank, 7);
  EXPECT_EQ(p->local_rank, 3);
}

TEST(RankEnvironment, OpenMpiComesBeforeSlurm) {
  const auto p = place({{"OMPI_COMM_WORLD_RANK", "1"},
                        {"OMPI_COMM_WORLD_SIZE", "2"},
                        {"SLURM_PROCID", "0"},
                        {"SLURM_STEP_NUM_TASKS", "1"}});
  ASSERT_TRUE(p);
  EXPECT_EQ(p->rank, 1);
}

TEST(RankEnvironment, NonsenseIsAUsageError) {
  EXPECT_THROW(place({{"PMI_RANK", "x"}, {"PMI_SIZE", "2"}}), Error);
  EXPECT_THROW(place({{"PMI_RANK", "-1"}, {"PMI_SIZE", "2"}}), Error);
  EXPECT_THROW(place({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}}), Error);
  EXPECT_THROW(place({{"PMI_RANK", ""}, {"PMI_SIZE", "2"}}), Error);
}

TEST(RankEnvironment, TheMachineHasAName) {
  EXPECT_FALSE(host_name().empty());
  EXPECT_EQ(host_name().find('\n'), std::string::npos);
}

}  // namespace
}  // namespace shoestring
