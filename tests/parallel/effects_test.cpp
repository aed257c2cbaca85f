#include "parallel/effects.h"

#include <gtest/gtest.h>

#include <vector>

#include "parallel/token_table.h"

namespace shoestring {
namespace {

std::vector<std::string> texts(const Tokens& tokens) {
  std::vector<std::string> list;
  for (const Token& token : tokens) list.push_back(token_text(token));
  return list;
}
using Texts = std::vector<std::string>;

TEST(Effects, OfEveryInstruction) {
  const auto effects = [](Do what, int16_t stage) {
    return effects_of({.what = what, .stage = stage, .micro = 5}, {.ranks = 3, .micros = 6}, false);
  };
  EXPECT_EQ(texts(effects(Do::F, 0).eats), Texts());
  EXPECT_EQ(texts(effects(Do::F, 0).makes),
            (Texts{"what the forward pass saved of stage 0, micro-batch 5",
                   "the input of stage 1, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::F, 2).makes),
            (Texts{"what the forward pass saved of stage 2, micro-batch 5",
                   "the output's gradient of stage 2, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::B, 1).eats),
            (Texts{"what the forward pass saved of stage 1, micro-batch 5",
                   "the output's gradient of stage 1, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::B, 1).makes),
            (Texts{"the output's gradient of stage 0, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::B, 0).makes), Texts());
  EXPECT_EQ(texts(effects(Do::I, 1).makes),
            (Texts{"what the weight gradients read of stage 1, micro-batch 5",
                   "the output's gradient of stage 0, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::W, 1).eats),
            (Texts{"what the weight gradients read of stage 1, micro-batch 5"}));
}

// Three parts, of which the second travels: F.0 F.1 F.2, then I.2 W.2 I.1 I.0 W.0.
TEST(Effects, PartsLeadToOneAnother) {
  const auto effects = [](Do what, int16_t part) {
    const Instruction i{.what = what, .travels = part == 1, .stage = 1, .micro = 5, .part = part};
    return effects_of(i, {.ranks = 3, .micros = 6}, true, 3);
  };
  const std::string at = " of stage 1, micro-batch 5";
  EXPECT_EQ(texts(effects(Do::F, 0).eats), (Texts{"the input" + at}));
  EXPECT_EQ(texts(effects(Do::F, 0).makes), (Texts{"the forward pass of part 0" + at}));
  EXPECT_EQ(texts(effects(Do::F, 2).eats), (Texts{"the forward pass of part 1" + at}));
  EXPECT_EQ(texts(effects(Do::F, 2).makes),
            (Texts{"what the forward pass saved" + at, "the output, not yet sent," + at}));
  EXPECT_EQ(texts(effects(Do::I, 2).eats),
            (Texts{"what the forward pass saved" + at, "the output's gradient" + at}));
  EXPECT_EQ(texts(effects(Do::I, 2).makes),
            (Texts{"what the weight gradients read of part 2" + at}));
  EXPECT_EQ(texts(effects(Do::W, 2).eats),
            (Texts{"what the weight gradients read of part 2" + at}));
  EXPECT_EQ(texts(effects(Do::W, 2).makes), (Texts{"the backward pass of part 2" + at}));
  EXPECT_EQ(texts(effects(Do::I, 1).makes), (Texts{"the backward pass of part 1" + at}));
  EXPECT_EQ(texts(effects(Do::I, 0).eats), (Texts{"the backward pass of part 1" + at}));
  EXPECT_EQ(texts(effects(Do::I, 0).makes), (Texts{"what the weight gradients read of part 0" + at,
                                                   "the input's gradient, not yet sent," + at}));
  EXPECT_EQ(texts(effects(Do::W, 0).makes), Texts());
}

TEST(Effects, WithTransfersAnotherRanksValuesWait) {
  const Placement loop{.ranks = 3, .micros = 6};
  const auto effects = [&](Do what, int16_t stage) {
    return effects_of({.what = what, .stage = stage, .micro = 5}, loop, true);
  };
  EXPECT_EQ(texts(effects(Do::F, 0).makes),
            (Texts{"what the forward pass saved of stage 0, micro-batch 5",
                   "the output, not yet sent, of stage 0, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::SA, 0).eats),
            (Texts{"the output, not yet sent, of stage 0, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::SA, 0).makes), texts(effects(Do::RA, 1).eats));
  EXPECT_EQ(texts(effects(Do::RA, 1).makes), (Texts{"the input of stage 1, micro-batch 5"}));
  EXPECT_EQ(texts(effects(Do::B, 2).makes), texts(effects(Do::SG, 2).eats));
  EXPECT_EQ(texts(effects(Do::SG, 2).makes), texts(effects(Do::RG, 1).eats));
  EXPECT_EQ(texts(effects(Do::RG, 1).makes),
            (Texts{"the output's gradient of stage 1, micro-batch 5"}));
  // The turn of a V stays on its rank.
  const Placement vee{.order = StageOrder::vee, .ranks = 3, .chunks = 2, .micros = 6};
  EXPECT_EQ(texts(effects_of({.what = Do::F, .stage = 2, .micro = 0}, vee, true).makes)[1],
            "the input of stage 3, micro-batch 0");
}

TEST(Effects, WhatStaysOnTheRank) {
  EXPECT_EQ(kept_by(Do::F).weights, Keep::needs);
  EXPECT_EQ(kept_by(Do::I).weights, Keep::needs);
  EXPECT_EQ(kept_by(Do::B).weights, Keep::needs);
  EXPECT_EQ(kept_by(Do::W).weights, Keep::none);
  EXPECT_EQ(kept_by(Do::I).gradients, Keep::none);
  EXPECT_EQ(kept_by(Do::B).gradients, Keep::makes);
  EXPECT_EQ(kept_by(Do::W).gradients, Keep::makes);
  EXPECT_EQ(kept_by(Do::G).weights, Keep::makes);
  EXPECT_EQ(kept_by(Do::R).weights, Keep::ends);
  EXPECT_EQ(kept_by(Do::S).gradients, Keep::ends);
  for (const Do what : {Do::G, Do::R, Do::S}) {
    EXPECT_EQ(texts(effects_of({.what = what}, {.ranks = 3, .micros = 6}, true).eats), Texts());
    EXPECT_TRUE(is_sharding(what) && !is_transfer(what) && !is_compute(what));
  }
}

TEST(Effects, ChannelsOfTransfers) {
  const Placement loop{.ranks = 3, .micros = 6};
  const auto channel = [&](Do what, int16_t stage) {
    return channel_of({.what = what, .stage = stage, .micro = 5}, loop);
  };
  EXPECT_EQ(channel(Do::SA, 0), (Channel{0, 1, Do::SA}));
  EXPECT_EQ(channel(Do::RA, 1), (Channel{0, 1, Do::SA}));
  EXPECT_EQ(channel(Do::SG, 2), (Channel{2, 1, Do::SG}));
  EXPECT_EQ(channel(Do::RG, 1), (Channel{2, 1, Do::SG}));
}

TEST(Effects, ATableHasACellForEveryToken) {
  TokenTable<int> table({.order = StageOrder::loop, .ranks = 2, .chunks = 2, .micros = 3});
  int count = 0;
  table.each([&](const Token& token, const int& cell) {
    EXPECT_EQ(&table.at(token), &cell);
    ++count;
  });
  EXPECT_EQ(count, 8 * 4 * 3);
}

}  // namespace
}  // namespace shoestring
