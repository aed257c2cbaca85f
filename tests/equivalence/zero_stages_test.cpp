// ZeRO stages against one rank and against one another: the same bits, with the optimiser, on a
// real model.

#include <gtest/gtest.h>

#include "tests/equivalence/zero_case.h"

namespace shoestring {
namespace {

std::string text_of(const ZeroPlan& p) {
  return cat("stage ", p.stage, ", ", p.ranks, " ranks, ", p.replicas, " replicas, ",
             p.micro_batches, " micro-batches, ", p.exact ? "exact, " : "", name_of(p.dtype), ", ",
             p.optimizer, p.kept ? ", kept" : "", p.host ? ", host" : "",
             p.activations ? ", activations" : "", ", groups ", p.groups);
}

// Of one rank without sharding, in exact mode: by what the bits may depend on.
const ZeroOutcome& one_rank(const ZeroPlan& p) {
  static std::map<std::tuple<Dtype, std::string, int64_t>, ZeroOutcome> known;
  const auto [at, fresh] =
      known.try_emplace({p.dtype, p.optimizer, p.micro_batches}, ZeroOutcome());
  if (fresh) {
    at->second = train({.exact = true,
                        .dtype = p.dtype,
                        .optimizer = p.optimizer,
                        .micro_batches = p.micro_batches});
  }
  return at->second;
}

TEST(ZeroStages, ExactModeHasTheBitsOfOneRank) {
  int64_t micro_batches = 0;  // 1 to 5 go round
  for (const int ranks : {2, 3, 4}) {
    for (const int64_t stage : {0, 1, 2, 3}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        for (const char* optimizer : {"adamw", "muon"}) {
          const ZeroPlan plan{.ranks = ranks,
                              .stage = stage,
                              .exact = true,
                              .dtype = dtype,
                              .optimizer = optimizer,
                              .micro_batches = micro_batches++ % 5 + 1};
          EXPECT_TRUE(same_bits(train(plan), one_rank(plan))) << text_of(plan);
        }
      }
    }
  }
  EXPECT_LT(one_rank({}).losses.back(), one_rank({}).losses.front());
}

// With as many micro-batches as ranks there is one reduction whatever the stage; with more, stages
// reduce alike when they are told to.
TEST(ZeroStages, PlainModeAgreesWithStage0) {
  int64_t micro_batches = 0;
  for (const int ranks : {2, 3, 4}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      for (const char* optimizer : {"adamw", "muon"}) {
        for (const GradientLife life : {GradientLife::step, GradientLife::slot}) {
          ZeroPlan plan{.ranks = ranks,
                        .gradients = life,
                        .dtype = dtype,
                        .optimizer = optimizer,
                        .micro_batches = micro_batches++ % 5 + 1};
          const ZeroOutcome wanted = train(plan);
          for (plan.stage = 1; plan.stage <= 3; ++plan.stage) {
            EXPECT_TRUE(same_bits(train(plan), wanted)) << text_of(plan);
          }
        }
      }
    }
  }
}

TEST(ZeroStages, TwoLevels) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      for (const int64_t micro_batches : {1, 4, 5}) {
        ZeroPlan plan{.ranks = 4,
                      .replicas = 2,
                      .stage = stage,
                      .exact = true,
                      .dtype = dtype,
                      .optimizer = stage % 2 == 0 ? "muon" : "adamw",
                      .micro_batches = micro_batches};
        EXPECT_TRUE(same_bits(train(plan), one_rank(plan))) << text_of(plan);
      }
    }
  }
}

// Groups of parameters, weights kept over the step, streams, offload: none changes a bit.
TEST(ZeroStages, SettingsThatChangeNothing) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const ZeroPlan plain{.ranks = 2,
                           .stage = stage,
                           .exact = true,
                           .dtype = dtype,
                           .optimizer = dtype == Dtype::f32 ? "adamw" : "muon",
                           .micro_batches = 5};
      std::vector<ZeroPlan> others(6, plain);
      others[0].groups = 2;
      others[1].kept = true;
      others[2].worker = false;
      others[3].host = true;
      others[4].activations = true;
      others[5].kept = others[5].host = others[5].activations = true;
      others[5].groups = 3;
      for (const ZeroPlan& plan : others) {
        if (plan.host && stage == 0) continue;  // refused: nothing is shared out
        EXPECT_TRUE(same_bits(train(plan), one_rank(plan))) << text_of(plan);
      }
    }
  }
}

// Tied embeddings and prediction modules read weights in more than one segment, recompute reads
// them again in the backward pass.
TEST(ZeroStages, EveryFamilyAndRecompute) {
  std::vector<ModelConfig> models = families();
  for (size_t i = 0; i < models.size(); ++i) {
    for (const Recompute recompute : {Recompute::none, Recompute::norms, Recompute::block}) {
      ZeroPlan plan{.exact = true,
                    .dtype = Dtype::bf16,
                    .micro_batches = 3,
                    .steps = 2,
                    .recompute = recompute,
                    .model = models[i]};
      const ZeroOutcome wanted = train(plan);
      plan.ranks = 2;
      plan.stage = 3;
      EXPECT_TRUE(same_bits(train(plan), wanted)) << i << " " << static_cast<int>(recompute);
      plan.activations = true;
      plan.groups = 2;
      EXPECT_TRUE(same_bits(train(plan), wanted)) << i << " " << static_cast<int>(recompute);
    }
  }
}

// DeepSpeed #7985 and #7967: four micro-batches accumulated on the host are the same as four ranks
// with one each, in exact mode (the last must be in the sum, and not be all of it).
TEST(ZeroStages, AccumulationOnTheHostKeepsEveryMicroBatch) {
  for (const int64_t stage : {1, 2, 3}) {
    ZeroPlan plan{.ranks = 1, .stage = stage, .exact = true, .host = true};
    const ZeroOutcome accumulated = train(plan);
    plan.ranks = 4;
    EXPECT_TRUE(same_bits(train(plan), accumulated)) << stage;
    EXPECT_TRUE(same_bits(accumulated, one_rank(plan))) << stage;
  }
}

// Megatron #5077: the optimiser's state is cut by parameter and element, not by place in a buffer
// with padding: what two ranks would save is what four would.
TEST(ZeroStages, StateIsTheSameWhoeverOwnsIt) {
  for (const char* optimizer : {"adamw", "muon"}) {
    ZeroPlan plan{.ranks = 2, .stage = 3, .exact = true, .optimizer = optimizer};
    const ZeroOutcome two = train(plan);
    plan.ranks = 4;
    plan.stage = 1;
    const ZeroOutcome four = train(plan);
    EXPECT_EQ(two.moments, four.moments) << optimizer;
    EXPECT_GT(two.moments.size(), 5000u);
  }
}

}  // namespace
}  // namespace shoestring
