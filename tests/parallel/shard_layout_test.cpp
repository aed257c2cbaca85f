#include "parallel/shard_layout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "core/check.h"

namespace shoestring {
namespace {

// Parameters of random sizes at multiples of 64, as ParamStore lays them out.
std::vector<ParamExtent> random_params(uint64_t seed, int64_t& elements) {
  std::mt19937_64 random(seed);
  std::vector<ParamExtent> params;
  elements = 0;
  const uint64_t n = 1 + random() % 20;
  for (uint64_t i = 0; i < n; ++i) {
    const auto size = static_cast<int64_t>(random() % 3 == 0 ? random() % 200 : random() % 60000);
    params.push_back({elements, elements + size, random() % 2 == 0});
    elements += (size + 63) / 64 * 64;
  }
  return params;
}

void expect_sound(const ShardLayout& layout, const std::vector<ParamExtent>& params,
                  int64_t elements, int ranks) {
  int64_t end = elements;
  for (const auto& bucket : layout.buckets()) {
    ASSERT_EQ(bucket.range.end, end);
    ASSERT_LT(bucket.range.begin, end);
    end = bucket.range.begin;
    ASSERT_EQ(bucket.counts.size(), static_cast<size_t>(ranks));
    ASSERT_EQ(std::accumulate(bucket.counts.begin(), bucket.counts.end(), int64_t{0}),
              bucket.range.elements());
  }
  ASSERT_EQ(end, 0);
  int64_t at = 0;
  for (const auto& piece : layout.pieces()) {
    ASSERT_EQ(piece.range.begin, at);
    ASSERT_GT(piece.range.end, at);
    at = piece.range.end;
    bool begins_param = false;
    for (const ParamExtent& p : params) {
      begins_param |= p.begin == at;
      if (p.whole) {
        ASSERT_FALSE(p.begin < at && at < p.end) << "a whole parameter is cut at " << at;
      }
    }
    ASSERT_TRUE(at == elements || begins_param || at % ShardLayout::granule == 0) << at;
  }
  ASSERT_EQ(at, elements);
  int64_t owned = 0;
  for (int r = 0; r < ranks; ++r) {
    for (const FlatRange& range : layout.owned(r)) owned += range.elements();
  }
  ASSERT_EQ(owned, elements);
}

TEST(ShardLayout, CoversTheStoreAndKeepsWholeParametersWhole) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    int64_t elements = 0;
    const auto params = random_params(seed, elements);
    const int ranks = 1 + static_cast<int>(seed % 5);
    const int64_t bucket = seed % 3 == 0 ? 1 : static_cast<int64_t>(1000 * (seed + 1));
    expect_sound(ShardLayout(elements, params, bucket, ranks), params, elements, ranks);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST(ShardLayout, SharesAreNearlyEqual) {
  const ShardLayout layout(1000 * 4096, {}, 50 * 4096, 3);
  for (int r = 0; r < 3; ++r) {
    int64_t owned = 0;
    for (const auto& range : layout.owned(r)) owned += range.elements();
    EXPECT_NEAR(static_cast<double>(owned), 1000 * 4096 / 3.0, 2 * 4096);
  }
}

TEST(ShardLayout, WholeMatricesGoRound) {
  // Twelve matrices, each larger than a bucket: four for each of three ranks.
  std::vector<ParamExtent> params;
  for (int64_t i = 0; i < 12; ++i) params.push_back({i * 100032, i * 100032 + 100000, true});
  const ShardLayout layout(12 * 100032, params, 4096, 3);
  EXPECT_EQ(layout.buckets().size(), 12u);
  for (int r = 0; r < 3; ++r) {
    int64_t owned = 0;
    for (const auto& range : layout.owned(r)) owned += range.elements();
    EXPECT_EQ(owned, 4 * 100032) << r;
  }
}

TEST(ShardLayout, OneRankOwnsEverything) {
  const ShardLayout layout(10000, {{0, 5000, false}}, 4096, 1);
  EXPECT_EQ(layout.owned(0), (std::vector<FlatRange>{{0, 10000}}));
  EXPECT_EQ(layout.buckets().size(), 3u);
}

TEST(ShardLayout, AnEmptyStoreHasNoBuckets) {
  const ShardLayout layout(0, {}, 4096, 2);
  EXPECT_TRUE(layout.buckets().empty());
  EXPECT_TRUE(layout.owned(1).empty());
}

TEST(ShardLayout, BadParametersAreErrors) {
  EXPECT_THROW(ShardLayout(100, {{0, 60, false}, {50, 70, false}}, 4096, 2), Error);
  EXPECT_THROW(ShardLayout(100, {{0, 101, false}}, 4096, 2), Error);
  EXPECT_THROW(ShardLayout(100, {}, 0, 2), Error);
}

}  // namespace
}  // namespace shoestring
