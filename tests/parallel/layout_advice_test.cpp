#include "parallel/layout_advice.h"

#include <gtest/gtest.h>

#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

LayoutQuestion question_of(int64_t pp, int64_t dp, int64_t batch, int64_t micro_batch,
                           const char* schedule = "1f1b") {
  LayoutQuestion question;
  question.config.pp = pp, question.config.dp_shard = dp;
  question.ranks = pp * dp;
  question.model.layers = 8, question.model.heads = 4, question.model.kv_heads = 4;
  question.model.sequence = 64, question.model.experts = 8, question.model.expert_ffn = 64;
  question.model.batch = batch, question.model.micro_batches = batch / micro_batch;
  question.model.schedule = needs_of({.name = schedule, .ranks = static_cast<int>(pp)});
  return question;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Each option is tried: the layout is then legal.
TEST(LayoutAdvice, TooFewMicroBatchesAskForMoreOrAnotherSchedule) {
  LayoutQuestion question = question_of(4, 1, 16, 4, "dualpipe");
  ASSERT_FALSE(is_legal(question));
  const std::string advice = advice_for(question);
  EXPECT_TRUE(has(advice, "--set train.micro_batch=2\n")) << advice;
  EXPECT_TRUE(has(advice, "--set train.batch=32\n")) << advice;
  EXPECT_TRUE(has(advice, "--set pipeline.schedule=1f1b\n")) << advice;
  EXPECT_FALSE(has(advice, "pipeline.schedule=dualpipev")) << advice;
  question.model.micro_batches = 8;
  EXPECT_TRUE(is_legal(question));
  question.model.micro_batches = 4;
  question.model.schedule = needs_of({.name = "1f1b", .ranks = 4});
  EXPECT_TRUE(is_legal(question));
}

TEST(LayoutAdvice, WhatDataRanksDoNotDivideAsksForAnotherBatch) {
  const LayoutQuestion question = question_of(2, 3, 16, 1);
  const std::string advice = advice_for(question);
  EXPECT_TRUE(has(advice, "--set train.batch=18")) << advice;
  EXPECT_FALSE(has(advice, "micro_batch")) << advice << ": 16 sequences are no multiple of 3";
}

TEST(LayoutAdvice, OtherFaultsAreNoneOfTheBatch) {
  LayoutQuestion question = question_of(1, 1, 16, 1);
  question.config.tp = 3, question.ranks = 3;
  const std::string advice = advice_for(question);
  EXPECT_FALSE(has(advice, "train.")) << advice;
  EXPECT_FALSE(has(advice, "schedule")) << advice;
}

TEST(LayoutAdvice, SlicesOfExpertsAreNotOfferedUnasked) {
  LayoutQuestion question = question_of(1, 1, 16, 1);
  question.config.tp = 8, question.ranks = 8;
  for (const MeshConfig& mesh : nearest_layouts(question, 1000)) EXPECT_EQ(mesh.etp, 1);
  EXPECT_FALSE(has(advice_for(question), "etp"));
  question.config.etp = 16;
  bool sliced = false;
  for (const MeshConfig& mesh : nearest_layouts(question, 1000)) sliced |= mesh.etp > 1;
  EXPECT_TRUE(sliced);
}

TEST(LayoutAdvice, WhereNothingFitsFewerRanksAreNamed) {
  LayoutQuestion question = question_of(1, 7, 16, 1);
  question.config.dp_shard = 0;
  ModelFacts& model = question.model;
  model.batch = 0;
  model.layers = 6, model.experts = 0;
  model.equal_batches = true;  // 7 does not divide 16 micro-batches, nor anything else
  EXPECT_EQ(advice_for(question),
            "no layout of 7 ranks is legal and keeps all at work; start 6 in their place:\n"
            "  --set mesh.pp=3");
  model.sequence = 255;
  model.layers = 1;
  model.micro_batches = 5;
  EXPECT_EQ(advice_for(question),
            "no layout of 7 ranks is legal and keeps all at work; start 5 in their place:\n"
            "  the options as they are");
}

TEST(LayoutAdvice, ExpertsAskForTheRanksThatTheyTakeFromOthers) {
  LayoutQuestion question = question_of(1, 1, 16, 1);
  question.config.ep = 2;
  EXPECT_TRUE(has(advice_for(question), "with 2 ranks in all:\n  --set mesh.dp_shard=2\n"))
      << advice_for(question);
  question.config.dp_shard = 2, question.config.etp = 2, question.ranks = 2;
  EXPECT_TRUE(has(advice_for(question), "with 4 ranks in all:\n  --set mesh.dp_shard=4\n"))
      << advice_for(question);
  question.config.ep = 3;  // no number of ranks divides 8 experts by 3
  EXPECT_FALSE(has(advice_for(question), "in all")) << advice_for(question);
}

TEST(LayoutAdvice, NoDataRankIsLeftWithoutAMicroBatch) {
  LayoutQuestion question = question_of(1, 1, 2, 1);
  question.config.cp = 5, question.ranks = 5;
  question.model.layers = 1;
  EXPECT_TRUE(has(advice_for(question), "start 4 in their place")) << advice_for(question);
  for (const MeshConfig& mesh : nearest_layouts(question, 1000)) EXPECT_LE(mesh.dp(), 2);
}

// All ranks stay at work, in the option that the user wrote.
TEST(LayoutAdvice, DataRanksAreNamedByTheirOwnOption) {
  LayoutQuestion question = question_of(1, 2, 24, 1);
  question.config.tp = 3, question.ranks = 6;
  question.data_key = "parallel.data_parallel";
  const std::string advice = advice_for(question);
  EXPECT_TRUE(has(advice, "--set mesh.tp=2 --set parallel.data_parallel=3")) << advice;
  EXPECT_FALSE(has(advice, "dp_shard")) << advice;
}

}  // namespace
}  // namespace shoestring
