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
    expect_sound(ShardLayout({0, elements}, params, bucket, ranks), params, elements, ranks);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

// Ranks that hold the same behind parameters of other sizes cut it alike.
TEST(ShardLayout, DoesNotDependOnWhereTheRangeBegins) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    int64_t elements = 0;
    const auto params = random_params(seed, elements);
    const int64_t bucket = static_cast<int64_t>(1000 * (seed % 20 + 1));
    const ShardLayout at_zero({0, elements}, params, bucket, 3);
    for (const int64_t shift : {64, 4096 + 64, 5 * 4096}) {
      auto moved = params;
      for (ParamExtent& p : moved) {
        p.begin += shift, p.end += shift;
        for (int64_t& cut : p.cuts) cut += shift;
      }
      std::vector<FlatRange> buckets;
      const ShardLayout layout({shift, elements + shift}, moved, bucket, 3);
      ASSERT_EQ(layout.buckets().size(), at_zero.buckets().size()) << seed << " " << shift;
      for (size_t b = 0; b < layout.buckets().size(); ++b) {
        EXPECT_EQ(layout.buckets()[b].range.begin, at_zero.buckets()[b].range.begin + shift);
        EXPECT_EQ(layout.buckets()[b].counts, at_zero.buckets()[b].counts) << seed << " " << shift;
        buckets.insert(buckets.begin(), layout.buckets()[b].range);
      }
      if (buckets.empty()) continue;
      const ShardLayout given(buckets, moved, 3);
      for (size_t b = 0; b < buckets.size(); ++b) {
        EXPECT_EQ(given.buckets()[b].counts, at_zero.buckets()[b].counts) << seed << " " << shift;
      }
    }
  }
}

TEST(ShardLayout, SharesAreNearlyEqual) {
  const ShardLayout layout({0, 1000 * 4096}, {}, 50 * 4096, 3);
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
  const ShardLayout layout({0, 12 * 100032}, params, 4096, 3);
  EXPECT_EQ(layout.buckets().size(), 12u);
  for (int r = 0; r < 3; ++r) {
    int64_t owned = 0;
    for (const auto& range : layout.owned(r)) owned += range.elements();
    EXPECT_EQ(owned, 4 * 100032) << r;
  }
}

// A Newton-Schulz iteration of a square matrix costs more than one of a flat matrix with as many
// elements: shares have equal cost, whatever their elements are.
TEST(ShardLayout, WholeMatricesAreBalancedByCost) {
  std::vector<ParamExtent> params;
  std::vector<double> cost(4), elements(4);
  for (int64_t i = 0; i < 40; ++i) {
    params.push_back({.begin = i * 8192,
                      .end = i * 8192 + 8192,
                      .whole = true,
                      .cost = i % 5 == 0 ? 10.0 : 1.0});
  }
  const ShardLayout layout({0, 40 * 8192}, params, 5 * 8192, 4);
  for (const auto& piece : layout.pieces()) {
    for (const ParamExtent& p : params) {
      if (p.begin < piece.range.begin || p.end > piece.range.end) continue;
      cost[static_cast<size_t>(piece.rank)] += p.cost;
      elements[static_cast<size_t>(piece.rank)] += 8192;
    }
  }
  for (int r = 0; r < 4; ++r) {
    EXPECT_NEAR(cost[static_cast<size_t>(r)], (8 * 10 + 32) / 4.0, 10) << r;  // within one matrix
  }
  EXPECT_EQ(std::accumulate(cost.begin(), cost.end(), 0.0), 8 * 10 + 32);
}

// Experts in one parameter: cut between them only. An embedding beside matrices is shared out by
// elements.
TEST(ShardLayout, CutsBetweenMatricesAndKindsApart) {
  const int64_t matrix = 10048, table = 16 * 4096;
  ParamExtent experts{.begin = table, .end = table + 6 * matrix, .whole = true, .cost = 6};
  for (int64_t e = 1; e < 6; ++e) experts.cuts.push_back(table + e * matrix);
  const ShardLayout layout({0, experts.end}, {{.begin = 0, .end = table}, experts}, 1 << 20, 3);
  ASSERT_EQ(layout.buckets().size(), 2u);
  for (int r = 0; r < 3; ++r) {
    EXPECT_EQ(layout.piece(layout.buckets()[0], r).elements(), 2 * matrix) << r;
    EXPECT_NEAR(static_cast<double>(layout.piece(layout.buckets()[1], r).elements()), table / 3.0,
                4096);
  }
}

TEST(ShardLayout, GivenBucketsAndARangeThatBeginsLater) {
  const std::vector<FlatRange> buckets = {{640, 9000}, {9000, 9064}, {9064, 50000}};
  const ShardLayout layout(buckets, {{700, 8000, true}, {9000, 9064}}, 2);
  ASSERT_EQ(layout.buckets().size(), 3u);
  EXPECT_EQ(layout.buckets()[0].range, buckets[2]);
  EXPECT_EQ(layout.pieces().front().range.begin, 640);
  EXPECT_EQ(layout.pieces().back().range.end, 50000);
  for (const auto& piece : layout.pieces()) {
    EXPECT_FALSE(piece.range.begin > 700 && piece.range.begin < 8000);
  }
  EXPECT_THROW(ShardLayout({{0, 10}, {11, 20}}, {}, 2), Error);
  EXPECT_THROW(ShardLayout({{0, 10}, {10, 10}}, {}, 2), Error);
}

TEST(ShardLayout, OneRankOwnsEverything) {
  const ShardLayout layout({0, 10000}, {{0, 5000, false}}, 4096, 1);
  EXPECT_EQ(layout.owned(0), (std::vector<FlatRange>{{0, 10000}}));
  EXPECT_EQ(layout.buckets().size(), 3u);
}

TEST(ShardLayout, AnEmptyStoreHasNoBuckets) {
  const ShardLayout layout({0, 0}, {}, 4096, 2);
  EXPECT_TRUE(layout.buckets().empty());
  EXPECT_TRUE(layout.owned(1).empty());
}

TEST(ShardLayout, BadParametersAreErrors) {
  EXPECT_THROW(ShardLayout({0, 100}, {{0, 60, false}, {50, 70, false}}, 4096, 2), Error);
  EXPECT_THROW(ShardLayout({0, 100}, {{0, 101, false}}, 4096, 2), Error);
  EXPECT_THROW(ShardLayout({0, 100}, {}, 0, 2), Error);
}

}  // namespace
}  // namespace shoestring
