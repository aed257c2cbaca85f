#include "launcher/core_share.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <mutex>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

std::vector<int> allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cores;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) cores.push_back(i);
  }
  return cores;
}

void bind_this_thread(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

// The shares of `ranks` threads, bound to the cores that `core_of` names, if any.
std::vector<CoreShare> shares(int ranks, int64_t wanted, std::vector<int> core_of = {}) {
  std::vector<CoreShare> result(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    if (!core_of.empty()) bind_this_thread(core_of[rank % core_of.size()]);
    result[rank] = share_cores(world, wanted);
  });
  return result;
}

TEST(CoreShare, OneRankHasAllCores) {
  const auto cores = static_cast<int>(allowed().size());
  const CoreShare share = shares(1, 0)[0];
  EXPECT_EQ(share.threads, cores);
  EXPECT_EQ(share.cores, cores);
  EXPECT_TRUE(share.first);
}

TEST(CoreShare, MoreRanksThanCoresStillHaveOnlyThoseCores) {
  const auto cores = static_cast<int>(allowed().size());
  const auto all = shares(3 * cores, 0);
  for (const CoreShare& share : all) {
    EXPECT_EQ(share.threads, 1);
    EXPECT_EQ(share.cores, cores);
    EXPECT_EQ(share.first, &share == &all[0]);
  }
}

TEST(CoreShare, WhatTheConfigWantsIsSharedOut) {
  for (const CoreShare& share : shares(2, 7)) {
    EXPECT_EQ(share.threads, 3);
    EXPECT_EQ(share.cores, std::min(6, static_cast<int>(allowed().size())));
  }
}

TEST(CoreShare, BoundRanksUseTheirCoresOnly) {
  const std::vector<int> cores = allowed();
  for (const CoreShare& share : shares(4, 0, {cores[0]})) {
    EXPECT_EQ(share.threads, 1);
    EXPECT_EQ(share.cores, 1);
    EXPECT_EQ(share.own_cores, 1);
  }
  const auto apart = static_cast<int>(std::min<size_t>(cores.size(), 2));
  for (const CoreShare& share : shares(2, 0, {cores.front(), cores.back()})) {
    EXPECT_EQ(share.threads, 1);
    EXPECT_EQ(share.cores, apart);
    EXPECT_EQ(share.own_cores, 1);
  }
}

}  // namespace
}  // namespace shoestring
