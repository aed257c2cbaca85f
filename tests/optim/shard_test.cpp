#include "optim/shard.h"

#include <gtest/gtest.h>

#include "optim/norm.h"
#include "tests/optim/support.h"

namespace shoestring {
namespace {

TEST(Shard, RangesCoverTheStoreWithoutOverlap) {
  const std::vector<Param> params = small_model();
  for (const char* optimizer : {"adamw", "muon"}) {
    const OptimConfig config{.optimizer = optimizer};
    for (int ranks = 1; ranks <= 9; ++ranks) {
      int64_t at = 0;
      for (int r = 0; r < ranks; ++r) {
        const FlatRange range = shard_range(params, config, r, ranks);
        EXPECT_EQ(range.begin, at);
        EXPECT_GE(range.end, range.begin);
        EXPECT_EQ(range.begin % norm_unit, 0);
        at = range.end;
        for (const Slice& s : slices_of(params, {&range, 1})) {
          const Param& p = params[static_cast<size_t>(s.param)];
          if (updated_by_muon(p.info, config)) {
            EXPECT_EQ(s.end - s.begin, p.elements);
          }
        }
      }
      EXPECT_EQ(at, flat_elements(params));
    }
  }
}

TEST(Shard, AdamShardsAreEvenAndWholeBlocks) {
  const std::vector<Param> params = make_params({info("a", {100, 1000}), info("b", {50, 100})});
  for (int r = 0; r < 4; ++r) {
    const FlatRange range = shard_range(params, {}, r, 4);
    EXPECT_EQ(range.begin % norm_block, 0);
    EXPECT_NEAR(static_cast<double>(range.elements()), 105000.0 / 4, norm_block);
  }
}

TEST(Shard, SlicesLeavePaddingOut) {
  const std::vector<Param> params = make_params({info("a", {3}), info("b", {5})});
  const FlatRange all{0, 128};
  const std::vector<Slice> slices = slices_of(params, {&all, 1});
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[0].end, 3);
  EXPECT_EQ(slices[1].flat.begin, 64);
  EXPECT_EQ(slices[1].flat.end, 69);
}

TEST(Shard, MuonTakesHiddenMatricesOnly) {
  const OptimConfig muon{.optimizer = "muon"};
  EXPECT_TRUE(updated_by_muon(info("w", {4, 4}), muon));
  EXPECT_FALSE(updated_by_muon(info("w", {4}), muon));
  EXPECT_FALSE(updated_by_muon(info("w", {4, 4}, ParamClass::head), muon));
  EXPECT_FALSE(updated_by_muon(info("w", {4, 4}, ParamClass::embedding), muon));
  EXPECT_FALSE(updated_by_muon(info("w", {4, 4}), {}));
}

}  // namespace
}  // namespace shoestring
