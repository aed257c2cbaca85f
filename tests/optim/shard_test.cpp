#include "optim/shard.h"

#include <gtest/gtest.h>

#include "tests/optim/support.h"

namespace shoestring {
namespace {

TEST(Shard, SlicesAreTheRangesCutAtParameters) {
  const std::vector<Param> params = small_model();
  const std::vector<FlatRange> owned = {{10, 900}, {900, 901}, {2000, 9000}};
  std::vector<int> times(static_cast<size_t>(flat_elements(params)));
  for (const Slice& s : slices_of(params, owned)) {
    const Param& p = params[static_cast<size_t>(s.param)];
    EXPECT_EQ(s.flat.begin, p.offset + s.begin);
    EXPECT_EQ(s.flat.end, p.offset + s.end);
    EXPECT_LE(s.end, p.elements);
    for (int64_t i = s.flat.begin; i < s.flat.end; ++i) ++times[static_cast<size_t>(i)];
  }
  for (const Param& p : params) {
    for (int64_t i = p.offset; i < p.offset + p.elements; ++i) {
      const bool inside = (i >= 10 && i < 901) || (i >= 2000 && i < 9000);
      ASSERT_EQ(times[static_cast<size_t>(i)], inside ? 1 : 0) << i;
    }
  }
}

TEST(Shard, ASpanMayHoldRangesOneBehindTheOther) {
  std::vector<float> values(100);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::vector<FlatRange> ranges = {{64, 100}, {200, 264}};
  const FlatSpan<float> span{values, 0, ranges};
  EXPECT_EQ(*span.at({64, 100}), 0);
  EXPECT_EQ(*span.at({70, 71}), 6);
  EXPECT_EQ(*span.at({200, 264}), 36);
  EXPECT_EQ(*span.at({263, 264}), 99);
  EXPECT_THROW(span.at({90, 101}), Error);
  EXPECT_THROW(span.at({0, 10}), Error);
  EXPECT_THROW(span.at({100, 200}), Error);
}

TEST(Shard, RangesMustAscend) {
  const std::vector<Param> params = small_model();
  EXPECT_THROW(slices_of(params, std::vector<FlatRange>{{100, 50}}), Error);
  EXPECT_THROW(slices_of(params, std::vector<FlatRange>{{0, 100}, {99, 200}}), Error);
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
