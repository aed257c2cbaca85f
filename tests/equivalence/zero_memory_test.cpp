// What ZeRO stages keep and send: the ledger and the counted bytes against the table of
// docs/data_parallel.md, to the byte.

#include <gtest/gtest.h>

#include "tests/equivalence/zero_case.h"

namespace shoestring {
namespace {

int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

struct Sizes {
  int64_t elements = 0, largest = 0, largest_pair = 0;
  explicit Sizes(const ModelConfig& model) {
    Device device(DeviceKind::cpu, 0, 1);
    const ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::f32,
                           {.weights = false, .gradients = false});
    elements = store.elements();
    const auto units = units_of(store, 0, static_cast<int>(store.params().size()));
    for (size_t u = 0; u < units.size(); ++u) {
      const int64_t here = units[u].range.elements();
      largest = std::max(largest, here);
      if (u > 0) largest_pair = std::max(largest_pair, here + units[u - 1].range.elements());
    }
  }
};

// Larger than granules, so that shares are even.
ModelConfig wider_model() {
  ModelConfig model = small_model();
  model.layers = 4;
  model.hidden = 64;
  model.ffn = 160;
  model.vocabulary = 256;
  return model;
}

// Units are reduced one at a time and weights gathered one ahead, whatever threads do.
ZeroPlan steady(int64_t stage, Dtype dtype) {
  return {.ranks = 2,
          .stage = stage,
          .dtype = dtype,
          .micro_batches = 4,
          .steps = 2,
          .worker = false,
          .model = wider_model()};
}

TEST(ZeroMemory, KeepsWhatTheTableSays) {
  const Sizes sizes(wider_model());
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const auto w = static_cast<int64_t>(size_of(dtype));
    for (const int64_t stage : {0, 1, 2, 3}) {
      int64_t all_moments = 0;
      for (const ZeroRank& rank : train(steady(stage, dtype)).ranks) {
        const int64_t e = sizes.elements, owned = rank.owned;
        EXPECT_EQ(rank.end.at(MemoryKind::weights), rounded(w * (stage < 3 ? e : owned)));
        EXPECT_EQ(rank.end.at(MemoryKind::master_weights),
                  dtype == Dtype::f32 ? 0 : rounded(4 * (stage < 1 ? e : owned)));
        EXPECT_EQ(rank.end.at(MemoryKind::gradients), rounded(4 * (stage < 2 ? e : owned)));
        all_moments += rank.end.at(MemoryKind::moments);
        // Whole gradients and weights: a unit's, and one that follows.
        EXPECT_EQ(rank.peak.at(MemoryKind::gradients),
                  stage < 2 ? rounded(4 * e) : rounded(4 * owned) + rounded(4 * sizes.largest))
            << stage;
        EXPECT_EQ(rank.peak.at(MemoryKind::weights),
                  stage < 3 ? rounded(w * e) : rounded(w * owned) + w * sizes.largest_pair);
        if (stage > 0) {
          EXPECT_NEAR(static_cast<double>(owned), e / 2.0, 0.1 * e);
        }
      }
      // Padding has none.
      const int64_t copies = stage == 0 ? 2 : 1;
      EXPECT_LE(all_moments, copies * 8 * sizes.elements);
      EXPECT_GE(all_moments, copies * 8 * sizes.elements * 9 / 10);
    }
  }
}

TEST(ZeroMemory, KeptWeightsAreThereForTheStep) {
  const Sizes sizes(wider_model());
  ZeroPlan plan = steady(3, Dtype::bf16);
  plan.kept = true;
  for (const ZeroRank& rank : train(plan).ranks) {
    EXPECT_EQ(rank.end.at(MemoryKind::weights), rounded(2 * rank.owned));
    EXPECT_EQ(rank.peak.at(MemoryKind::weights), rounded(2 * rank.owned) + 2 * sizes.elements);
  }
}

TEST(ZeroMemory, OffloadLeavesTheDeviceAlone) {
  for (const int64_t stage : {1, 2, 3}) {
    ZeroPlan plan = steady(stage, Dtype::bf16);
    const ZeroOutcome here = train(plan);
    plan.host = true;
    const ZeroOutcome there = train(plan);
    EXPECT_TRUE(same_bits(here, there)) << stage;
    for (const ZeroRank& rank : there.ranks) {
      EXPECT_EQ(rank.end.at(MemoryKind::master_weights) + rank.end.at(MemoryKind::moments), 0);
      if (stage > 1) {
        EXPECT_EQ(rank.end.at(MemoryKind::gradients), 0);
      }
      EXPECT_GE(rank.host_peak, 16 * rank.owned * 9 / 10);  // masters, moments, sums
    }
  }
}

TEST(ZeroMemory, OffloadedActivationsLowerThePeak) {
  ZeroPlan plan = steady(1, Dtype::bf16);
  plan.model.layers = 8;
  const ZeroOutcome here = train(plan);
  plan.activations = true;
  const ZeroOutcome there = train(plan);
  EXPECT_TRUE(same_bits(here, there));
  for (size_t r = 0; r < 2; ++r) {
    const int64_t kept = here.ranks[r].peak.at(MemoryKind::activations);
    EXPECT_LT(there.ranks[r].peak.at(MemoryKind::activations), kept / 2);
    EXPECT_GT(there.ranks[r].host_peak, kept / 2);
  }
}

// Of all ranks together, a step: each collective over n ranks moves (n - 1) of what it is about.
TEST(ZeroMemory, SendsWhatTheFormulasSay) {
  const Sizes sizes(wider_model());
  const auto sent = [&](const ZeroPlan& plan) {
    int64_t sum = 0;
    for (const ZeroRank& rank : train(plan).ranks) {
      sum += rank.reduction.bytes_sent + rank.gathers.bytes_sent / plan.steps;
    }
    return sum;
  };
  for (const int n : {2, 4}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const int64_t w = static_cast<int64_t>(size_of(dtype)), g = 4, slots = 2;
      const int64_t all = sizes.elements * (n - 1);
      ZeroPlan plan = steady(0, dtype);
      plan.ranks = n;
      plan.micro_batches = slots * n;
      EXPECT_EQ(sent(plan), all * 2 * g);
      plan.stage = 1;
      EXPECT_EQ(sent(plan), all * (g + w));
      plan.stage = 2;
      EXPECT_EQ(sent(plan), all * (slots * g + w));
      plan.gradients = GradientLife::step;
      EXPECT_EQ(sent(plan), all * (g + w));
      plan.gradients = GradientLife::automatic;
      plan.stage = 3;
      EXPECT_EQ(sent(plan), all * slots * (2 * w + g));
      plan.kept = true;
      EXPECT_EQ(sent(plan), all * (w + slots * g));
    }
  }
  // Two levels: the same inside, and an all-reduce of each share across two replicas.
  ZeroPlan plan = steady(1, Dtype::bf16);
  plan.ranks = 4;
  plan.replicas = 2;
  EXPECT_EQ(sent(plan), 2 * sizes.elements * (4 + 2) + 2 * sizes.elements * 4);
}

}  // namespace
}  // namespace shoestring
