#include "parallel/comm/whereabouts.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <thread>

#include "core/text.h"

namespace shoestring {
namespace {

TEST(Whereabouts, TextsAreCutAndReplaced) {
  SharedText<2> text;
  EXPECT_EQ(text.get(), "");
  text.set("reduce_scatter");
  EXPECT_EQ(text.get(), "reduce_scatter");
  text.set("sixteen letters.");
  EXPECT_EQ(text.get(), "sixteen letters.");
  text.set("seventeen letters");
  EXPECT_EQ(text.get(), "seventeen letter");
  text.set("short");
  EXPECT_EQ(text.get(), "short");
  text.set("");
  EXPECT_EQ(text.get(), "");
}

TEST(Whereabouts, APlaceIsPhaseOrInstructionAndParameter) {
  Whereabouts rank;
  EXPECT_EQ(rank.state(), Whereabouts::not_begun);
  rank.begin(5, 42, "node1");
  EXPECT_EQ(rank.number(), 5);
  EXPECT_EQ(rank.state(), Whereabouts::running);
  EXPECT_EQ(rank.process(), 42);
  EXPECT_EQ(rank.host(), "node1");
  EXPECT_EQ(rank.place(), "");
  EXPECT_FALSE(rank.in_step());
  rank.enter("update", 3);
  EXPECT_TRUE(rank.in_step());
  EXPECT_EQ(rank.place(), "step 3, update");
  EXPECT_EQ(rank.short_place(3), "update");
  EXPECT_EQ(rank.short_place(2), "step 3, update");
  rank.enter(Instruction{.what = Do::I, .stage = 1, .micro = 2});
  EXPECT_EQ(rank.place(), "step 3, 1I2 (input gradient of stage 1, the rank's micro-batch 2)");
  EXPECT_EQ(rank.short_place(3), "1I2");
  rank.set_micro_batch(5);
  rank.set_parameter("layers.1.mlp.up.weight");
  EXPECT_EQ(rank.place(),
            "step 3, 1I2 (input gradient of stage 1, micro-batch 5 of the step), "
            "layers.1.mlp.up.weight");
  rank.enter(Instruction{.what = Do::SA, .stage = 0, .micro = 1});
  EXPECT_EQ(rank.place(),
            "step 3, 0SA1 (sending of the activation of stage 0, the rank's micro-batch 1)");
  rank.enter("", 0);
  EXPECT_EQ(rank.place(), "");
  rank.leave();
  EXPECT_EQ(rank.state(), Whereabouts::left);
}

TEST(Whereabouts, CallsOfTheRankItselfAreWaits) {
  Whereabouts rank;
  const WhereaboutsScope scope(&rank);
  EXPECT_TRUE(rank.waits().empty());
  {
    CallRecord call(rank, {.op = "all_reduce", .group = "tp/2", .sequence = 17, .bytes = 4096});
    ASSERT_EQ(rank.waits().size(), 1u);
    EXPECT_EQ(call_text(*rank.waits()[0]), "all_reduce #17 of 'tp/2' (4096 bytes)");
    EXPECT_TRUE(lacking(*rank.waits()[0]).empty());
    call.lacks(std::array{4, 6});
    EXPECT_EQ(lacking(*rank.waits()[0]), (std::vector<int>{4, 6}));
  }
  EXPECT_TRUE(rank.waits().empty());
}

// A receipt that was posted ahead keeps nobody waiting until the rank asks for it.
TEST(Whereabouts, CallsOfWorkersAreWaitsWhileTheRankAwaitsThem) {
  Whereabouts rank;
  const WhereaboutsScope scope(&rank);
  std::unique_ptr<CallRecord> call;
  std::thread([&] {
    call = std::make_unique<CallRecord>(rank, CallRecord::What{"exchange", "a"});
  }).join();
  EXPECT_TRUE(rank.waits().empty());
  {
    const Awaiting waits("an answer");
    EXPECT_EQ(rank.waits().size(), 1u);
    const CallRecord own(rank, {.op = "all_gather", .group = "tp/0"});
    ASSERT_EQ(rank.waits().size(), 1u);
    EXPECT_EQ(rank.waits()[0]->op.get(), "all_gather");
  }
  EXPECT_TRUE(rank.waits().empty());
}

TEST(Whereabouts, AListenerIsToldOfWaitsButNotOfThoseInside) {
  std::vector<std::string> told;
  const WaitListener listener = [&](std::string_view what, auto begin, auto end) {
    EXPECT_LE(begin, end);
    told.emplace_back(what);
  };
  { const Awaiting waits("before"); }
  listen_to_waits(&listener);
  {
    const Awaiting waits("sums");
    const Awaiting inside("room");
  }
  { const Awaiting waits("weights"); }
  std::thread([] { const Awaiting waits("of another thread"); }).join();
  listen_to_waits(nullptr);
  { const Awaiting waits("after"); }
  EXPECT_EQ(told, (std::vector<std::string>{"sums", "weights"}));
}

TEST(Whereabouts, WhatWasGivenUpStaysToBeTold) {
  Whereabouts rank;
  const WhereaboutsScope scope(&rank);
  try {
    const CallRecord call(rank, {.op = "all_reduce", .group = "tp/2"});
    throw std::runtime_error("no answer");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(rank.waits().size(), 1u);
  // Not what a worker gave up while the rank did something else.
  Whereabouts busy;
  try {
    const CallRecord call(busy, {.op = "exchange", .group = "a"});
    throw std::runtime_error("no answer");
  } catch (const std::runtime_error&) {
  }
  EXPECT_TRUE(busy.waits().empty());
}

TEST(Whereabouts, MoreCallsThanThereIsRoomForAreLeftOut) {
  Whereabouts rank;
  const WhereaboutsScope scope(&rank);
  std::vector<std::unique_ptr<CallRecord>> calls;
  for (int i = 0; i < 100; ++i) {
    calls.push_back(std::make_unique<CallRecord>(rank, CallRecord::What{"exchange", "a"}));
    calls.back()->lacks(std::array{i});
  }
  const size_t told = rank.waits().size();
  EXPECT_GT(told, 7u);
  EXPECT_LT(told, 100u);
  calls.clear();
  EXPECT_TRUE(rank.waits().empty());
}

TEST(Whereabouts, ScopesNestAndAThreadHasItsOwn) {
  EXPECT_EQ(whereabouts(), nullptr);
  enter_phase("nowhere", 1);  // of no rank
  Whereabouts one, two;
  {
    const WhereaboutsScope outer(&one);
    enter_phase("update", 1);
    {
      const WhereaboutsScope inner(&two);
      EXPECT_EQ(whereabouts(), &two);
    }
    EXPECT_EQ(whereabouts(), &one);
    std::thread([] { EXPECT_EQ(whereabouts(), nullptr); }).join();
  }
  EXPECT_EQ(whereabouts(), nullptr);
  EXPECT_EQ(one.place(), "step 1, update");
  EXPECT_EQ(two.place(), "");
}

TEST(Whereabouts, ABlockingCallHasATime) {
  Whereabouts rank;
  EXPECT_EQ(rank.blocked_for().count(), 0);
  rank.set_blocked("MPI_Comm_split");
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_GE(rank.blocked_for().count(), 20);
  EXPECT_EQ(rank.blocked_in(), "MPI_Comm_split");
  rank.set_blocked(nullptr);
  EXPECT_EQ(rank.blocked_for().count(), 0);
}

}  // namespace
}  // namespace shoestring
