#include "parallel/comm/failure_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "core/text.h"

namespace shoestring {
namespace {

// Ranks at places, with calls that lack others.
class Ranks {
 public:
  explicit Ranks(int count) : places_(static_cast<size_t>(count)) {
    for (Whereabouts& place : places_) {
      place.begin(0, 1, "node1");
      place.enter("update", 3);
    }
  }
  Whereabouts& operator[](int rank) { return places_[static_cast<size_t>(rank)]; }
  void waits(int rank, const std::vector<int>& lacking, std::string_view group = "tp/0") {
    const WhereaboutsScope scope(&(*this)[rank]);
    calls_.push_back(
        std::make_unique<CallRecord>((*this)[rank], CallRecord::What{"all_reduce", group, 7, 64}));
    calls_.back()->lacks(lacking);
  }
  Board board() const {
    Board all;
    for (const Whereabouts& place : places_) all.push_back(&place);
    return all;
  }

 private:
  std::deque<Whereabouts> places_;
  std::vector<std::unique_ptr<CallRecord>> calls_;
};

TEST(FailureText, TheCauseIsAtTheEndOfTheWaits) {
  Ranks ranks(5);
  ranks.waits(0, {1});
  ranks.waits(1, {2, 0});
  ranks.waits(2, {3});
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), 3);
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{4}), 4);
  ranks.waits(3, {0});
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), std::nullopt);
  ranks.waits(3, {4});
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), 4);
  ranks[2].leave();  // who has ended answers no more, whatever it waited for
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), 2);
  Board board = ranks.board();
  board[1] = nullptr;  // on another machine
  EXPECT_EQ(awaited_in_the_end(board, 0, std::array{1}), 1);
}

TEST(FailureText, ARankWhoseWorkerWaitsMayBeTheCause) {
  Ranks ranks(4);
  ranks.waits(1, {2});
  ranks.waits(2, {0});
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), 0);
  ranks.waits(0, {3});  // itself, elsewhere
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), 3);
  ranks.waits(3, {1});
  EXPECT_EQ(awaited_in_the_end(ranks.board(), 0, std::array{1}), std::nullopt);
}

TEST(FailureText, ALineTellsWhatWhereAndWhoWaits) {
  Ranks ranks(5);
  ranks[1].enter(Instruction{.what = Do::W, .stage = 0, .micro = 2});
  ranks[1].set_parameter("layers.0.mlp.up.weight");
  ranks.waits(0, {1});
  ranks.waits(4, {1});
  ranks.waits(2, {0});
  EXPECT_EQ(failure_line({.message = "the disk is full", .rank = 1}, ranks.board()),
            "rank 1: the disk is full; rank 1 on node1 was in step 3, 0W2 (weight gradient of "
            "stage 0, the rank's micro-batch 2), layers.0.mlp.up.weight; meanwhile ranks 0, 2 and "
            "4: waiting for ranks 1, 0 and 1 respectively in all_reduce #7 of 'tp/0', update; rank "
            "3: busy in update");
  ranks.waits(1, {});
  EXPECT_NE(place_text(ranks.board(), 1).find("weight, in all_reduce #7 of 'tp/0' (64 bytes)"),
            std::string::npos);
}

TEST(FailureText, WhatAUserDidSpeaksForItself) {
  Ranks ranks(2);
  const auto line = [&](ExitCode code) {
    return failure_line({.message = "bad", .code = code, .rank = 1}, ranks.board());
  };
  EXPECT_EQ(line(ExitCode::usage), "rank 1: bad");
  EXPECT_NE(line(ExitCode::data).find("was in step 3, update"), std::string::npos);
  EXPECT_NE(line(ExitCode::fault).find("was in step 3, update"), std::string::npos);
  ranks[1].enter("start", 0);
  EXPECT_EQ(line(ExitCode::data), "rank 1: bad");
  EXPECT_NE(line(ExitCode::fault).find("was in start"), std::string::npos);
  ranks[1].enter("", 0);
  EXPECT_EQ(line(ExitCode::fault), "rank 1: bad");
}

TEST(FailureText, OfManyRanksTheFirstAreTold) {
  Ranks ranks(64);
  for (int r = 1; r < 64; ++r) ranks.waits(r, {r - 1});
  const std::string text = others_text(ranks.board(), 0);
  EXPECT_TRUE(text.starts_with("ranks 1-8: waiting for ranks 0, 1, 2, 3, 4, 5, 6 and 7 resp"));
  EXPECT_EQ(std::count(text.begin(), text.end(), ';'), 7) << text;
  for (int r = 1; r < 64; r += 2) ranks[r].enter("update", 4 + r);
  const std::string apart = others_text(ranks.board(), 0);
  EXPECT_NE(apart.find("rank 11: waiting for rank 10 in all_reduce #7 of 'tp/0', step 15, update"),
            std::string::npos)
      << apart;
  EXPECT_TRUE(apart.ends_with(" more")) << apart;
}

// As eight ranks of a hung tensor rank: what they do alike is said once.
TEST(FailureText, RanksThatWaitAlikeAreOneClause) {
  Ranks ranks(9);
  for (const int r : {0, 1, 4, 5}) ranks.waits(r, {r + 2}, cat("dp/", r));
  ranks.waits(2, {3});
  for (const int r : {6, 7}) ranks.waits(r, {2, 3}, "world");
  ranks[8].enter("evaluation", 3);
  EXPECT_EQ(
      others_text(ranks.board(), 3),
      "ranks 0, 1, 4 and 5: waiting for ranks 2, 3, 6 and 7 respectively in all_reduce #7 of "
      "'dp/0', 'dp/1', 'dp/4' and 'dp/5', update; rank 2: waiting for rank 3 in all_reduce #7 of "
      "'tp/0', "
      "update; ranks 6 and 7: waiting for ranks 2 and 3 in all_reduce #7 of 'world', update; "
      "rank 8: busy in evaluation");
  Ranks same(6);
  for (const int r : {0, 1, 2, 4, 5}) same.waits(r, {3}, cat("tp/", r / 4));
  EXPECT_EQ(others_text(same.board(), 3),
            "ranks 0-2, 4 and 5: waiting for rank 3 in all_reduce #7 of 'tp/0' and 'tp/1', update");
}

TEST(FailureText, AWaitThatWasTooLong) {
  const Unanswered wait{
      .waiting = 0, .call = "all_reduce #7 of 'tp/0'", .deadline = 300, .lacking = {1, 2}};
  EXPECT_EQ(unanswered_text(wait, 3),
            "rank 3 does not answer: rank 0 waited 300 ms for ranks 1 and 2 in all_reduce #7 of "
            "'tp/0'");
  EXPECT_TRUE(
      unanswered_text(wait, std::nullopt).starts_with("ranks wait for one another: rank 0"));
}

}  // namespace
}  // namespace shoestring
