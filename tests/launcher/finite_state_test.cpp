#include "launcher/finite_state.h"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

template <class Work>
void on_one_rank(const RunConfig& config, Work work) {
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    rank.store->initialise(1);
    rank.start_average();
    work(rank);
  });
}

// The state of that name: shares the optimiser's or the average's memory.
Tensor values_of(std::vector<StateTensor> states, const std::string& kind,
                 const std::string& name) {
  for (StateTensor& s : states) {
    if (s.kind == kind && s.name == name) return s.values;
  }
  ADD_FAILURE() << kind << "/" << name << " is not there";
  return {};
}

TEST(FiniteState, NamesTheFirstOfEachKind) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.ema_decay = 0.9;
  const std::string down = "layers.1.mlp.down.weight";
  on_one_rank(config, [&](RankState& rank) {
    EXPECT_EQ(text_of_bad_state(rank), "");
    float* average = values_of(rank.ema->state(), "ema", down).data<float>();
    average[5] = -infinity;
    EXPECT_EQ(text_of_bad_state(rank), cat("tensor ", down, " (element 5 of ema is -inf)"));
    float* v = values_of(rank.optimizer->state(), "v", down).data<float>();
    v[4] = infinity;
    EXPECT_EQ(text_of_bad_state(rank), cat("tensor ", down, " (element 4 of v is inf)"));
    float* w = rank.store->master(rank.store->param(down)).data<float>();
    w[7] = nan;
    w[9] = nan;
    EXPECT_EQ(text_of_bad_state(rank), cat("tensor ", down, " (element 7 of the weight is nan)"));
    w[7] = w[9] = std::numeric_limits<float>::max();
    v[4] = 0;
    average[5] = -std::numeric_limits<float>::denorm_min();
    EXPECT_EQ(text_of_bad_state(rank), "");
  });
}

TEST(FiniteState, MomentsInBf16) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.moments = "bf16";
  on_one_rank(config, [&](RankState& rank) {
    const Tensor m = values_of(rank.optimizer->state(), "m", "embedding.weight");
    ASSERT_EQ(m.dtype(), Dtype::bf16);
    m.data<BFloat16>()[3].bits = 0x7f7f;  // the largest
    EXPECT_EQ(text_of_bad_state(rank), "");
    m.data<BFloat16>()[3].bits = 0xff80;
    EXPECT_EQ(text_of_bad_state(rank), "tensor embedding.weight (element 3 of m is -inf)");
  });
}

// With sharded state only the owner can see it; no rank goes on to save.
TEST(FiniteState, WhatOneRankFindsStopsAll) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.zero_stage = 1;
  std::atomic<int> passed = 0;
  const auto check = [&](int bad_rank) {
    run_ranks(2, [&](Communicator& world) {
      RankState rank(config, world, 1);
      rank.store->initialise(1);
      rank.step = rank.updates = 6;
      if (world.rank() == bad_rank) {
        rank.store->master()[static_cast<size_t>(rank.gradients->owned_ranges().front().begin)] =
            nan;
      }
      const AbortOnUnwind abort(world);
      require_finite_state(rank, 4);
      ++passed;
    });
  };
  check(2);
  EXPECT_EQ(passed.exchange(0), 2);
  for (int bad : {0, 1}) {
    expect_error(ExitCode::fault,
                 {cat("the state is not finite: rank ", bad, ", after step 6, tensor "),
                  "of the weight is nan", "goes on after step 4 (", "2 steps lost", "optim.lr"},
                 [&] { check(bad); });
    EXPECT_EQ(passed, 0);
  }
}

TEST(FiniteState, RemediesAreThoseThatHelp) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.clip = 0;
  config.optim.skip.window = 4;
  on_one_rank(config, [&](RankState& rank) {
    EXPECT_NE(remedy_of(rank, -1).find("No update has been done yet"), std::string::npos);
    rank.step = rank.updates = 3;
    const std::string early = remedy_of(rank, -1);
    EXPECT_NE(early.find("begins anew, because no checkpoint was saved yet (3 steps lost)"),
              std::string::npos)
        << early;
    EXPECT_NE(early.find("optim.clip = 1"), std::string::npos) << early;
    EXPECT_EQ(early.find("optim.skip"), std::string::npos) << early;
    rank.step = rank.updates = 4;
    EXPECT_NE(remedy_of(rank, 3).find("optim.skip.loss_z = 5"), std::string::npos);
    const std::string same = remedy_of(rank, 4);
    EXPECT_NE(same.find("remove " + config.run.directory + "/checkpoints/step_00000004"),
              std::string::npos)
        << same;
    EXPECT_NE(same.find("begins anew: no earlier one is there"), std::string::npos) << same;
    rank.config.optim.clip = 1;
    rank.config.optim.skip.norm_z = 5;
    const std::string set = remedy_of(rank, 3);
    EXPECT_EQ(set.find("optim.clip"), std::string::npos) << set;
    EXPECT_EQ(set.find("optim.skip"), std::string::npos) << set;
  });
}

}  // namespace
}  // namespace shoestring
