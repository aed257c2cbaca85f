#include "parallel/covering_array.h"

#include <gtest/gtest.h>

#include <random>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::vector<Factor> factors_of(const std::vector<int>& sizes) {
  std::vector<Factor> factors;
  for (size_t f = 0; f < sizes.size(); ++f) {
    Factor factor{cat("f", f), {}};
    for (int s = 0; s < sizes[f]; ++s) factor.settings.push_back(cat(s));
    factors.push_back(factor);
  }
  return factors;
}

bool anything(const SettingRow&) { return true; }

// All complete rows, legal or not.
std::vector<SettingRow> product_of(const std::vector<Factor>& factors) {
  std::vector<SettingRow> rows = {{}};
  for (const Factor& factor : factors) {
    std::vector<SettingRow> longer;
    for (const SettingRow& row : rows) {
      for (size_t s = 0; s < factor.settings.size(); ++s) {
        longer.push_back(row);
        longer.back().push_back(static_cast<int>(s));
      }
    }
    rows = longer;
  }
  return rows;
}

bool has_pair(const SettingRow& row, const SettingPair& pair) {
  return row[static_cast<size_t>(pair.factor)] == pair.setting &&
         row[static_cast<size_t>(pair.other_factor)] == pair.other_setting;
}

std::vector<SettingPair> pairs_of(const std::vector<Factor>& factors) {
  std::vector<SettingPair> pairs;
  for (int f = 0; f < static_cast<int>(factors.size()); ++f) {
    for (int g = f + 1; g < static_cast<int>(factors.size()); ++g) {
      for (int a = 0; a < static_cast<int>(factors[static_cast<size_t>(f)].settings.size()); ++a) {
        for (int b = 0; b < static_cast<int>(factors[static_cast<size_t>(g)].settings.size());
             ++b) {
          pairs.push_back({f, a, g, b});
        }
      }
    }
  }
  return pairs;
}

// Against the whole product: rows are legal, and a pair is in some row of the array exactly when it
// is in some legal row; else it is listed as impossible.
void expect_covering(const std::vector<Factor>& factors, const Legality& legal,
                     const CoveringArray& array) {
  std::vector<SettingRow> all;
  for (const SettingRow& row : product_of(factors)) {
    if (legal(row)) all.push_back(row);
  }
  for (const SettingRow& row : array.rows) {
    ASSERT_EQ(row.size(), factors.size());
    ASSERT_TRUE(legal(row)) << text_of(factors, row);
  }
  const auto in = [](const std::vector<SettingRow>& rows, const SettingPair& pair) {
    for (const SettingRow& row : rows) {
      if (has_pair(row, pair)) return true;
    }
    return false;
  };
  for (const SettingPair& pair : pairs_of(factors)) {
    const bool possible = in(all, pair);
    ASSERT_EQ(in(array.rows, pair), possible) << text_of(factors, pair);
    const bool listed =
        std::find(array.impossible.begin(), array.impossible.end(), pair) != array.impossible.end();
    ASSERT_EQ(listed, !possible) << text_of(factors, pair);
  }
}

TEST(CoveringArray, EveryPairIsInARow) {
  for (const std::vector<int>& sizes : std::vector<std::vector<int>>{
           {2, 2, 2}, {3, 3, 3, 3}, {1, 1}, {4, 1, 3}, {5, 4, 3, 2, 2}, {2, 2, 2, 2, 2, 2, 2}}) {
    const auto factors = factors_of(sizes);
    expect_covering(factors, anything, covering_array(factors, anything));
  }
}

TEST(CoveringArray, OneFactorHasARowForEachLegalSetting) {
  const auto factors = factors_of({4});
  const auto array = covering_array(factors, [](const SettingRow& row) { return row[0] != 2; });
  EXPECT_EQ(array.rows, (std::vector<SettingRow>{{0}, {1}, {3}}));
}

// Known bounds: no array has fewer rows than the two largest factors have pairs; the best for 3^4
// has 9 rows, for 3^13 15 and for 2^10 6. A greedy search comes near.
TEST(CoveringArray, HasFewRows) {
  const auto rows = [](const std::vector<int>& sizes) {
    return covering_array(factors_of(sizes), anything).rows.size();
  };
  EXPECT_LE(rows({3, 3, 3, 3}), 11u);
  EXPECT_LE(rows(std::vector<int>(13, 3)), 21u);
  EXPECT_LE(rows(std::vector<int>(10, 2)), 9u);
  EXPECT_LE(rows({5, 4, 3, 3, 2, 2}), 23u);
  EXPECT_GE(rows({5, 4, 3, 3, 2, 2}), 20u);
}

// What the parity tests ask for: axes, schedule, ZeRO stage, recompute, precision, model.
TEST(CoveringArray, AxesScheduleZeroAndPrecision) {
  const std::vector<Factor> factors = {
      {"tp", {"1", "2", "4"}},
      {"cp", {"1", "2"}},
      {"ep", {"1", "2", "4"}},
      {"pp", {"1", "2", "4"}},
      {"dp", {"1", "2"}},
      {"schedule", {"none", "gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe"}},
      {"zero", {"0", "1", "2", "3"}},
      {"precision", {"f32", "bf16", "fp8"}},
      {"model", {"llama", "qwen3", "mixtral", "deepseek"}}};
  // At most 8 ranks, experts only where there are some, a schedule only with a pipeline.
  const Legality legal = [](const SettingRow& row) {
    const auto size = [&](size_t f, std::vector<int> sizes) {
      return row[f] == unset ? 1 : sizes[static_cast<size_t>(row[f])];
    };
    const int stage = size(0, {1, 2, 4}) * size(1, {1, 2}) * size(4, {1, 2});
    const int pp = size(3, {1, 2, 4});
    if (stage * pp > 8) return false;
    const bool known = row[0] != unset && row[1] != unset && row[4] != unset;
    if (known && stage % size(2, {1, 2, 4}) != 0) return false;
    if (row[2] > 0 && (row[8] == 0 || row[8] == 1)) return false;
    if (row[3] != unset && row[5] != unset && (pp == 1) != (row[5] == 0)) return false;
    return true;
  };
  const CoveringArray array = covering_array(factors, legal);
  expect_covering(factors, legal, array);
  EXPECT_LE(array.rows.size(), 60u);
  size_t all = 0;
  for (const SettingRow& row : product_of(factors)) all += legal(row) ? 1 : 0;
  EXPECT_GT(all, 100 * array.rows.size());
  EXPECT_FALSE(array.impossible.empty());
}

// Forbidden pairs and triples at random: what is left is found whatever the rows before it fixed.
TEST(CoveringArray, EveryLegalPairIsFoundUnderRandomConstraints) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 40; ++i) {
    std::vector<int> sizes;
    for (uint64_t f = 0, n = 2 + random() % 4; f < n; ++f) {
      sizes.push_back(1 + static_cast<int>(random() % 4));
    }
    const auto factors = factors_of(sizes);
    std::vector<SettingRow> forbidden;
    for (uint64_t k = 0, n = random() % 8; k < n; ++k) {
      SettingRow part(sizes.size(), unset);
      for (int j = 0; j < 3; ++j) {
        const size_t f = random() % sizes.size();
        part[f] = static_cast<int>(random() % static_cast<uint64_t>(sizes[f]));
      }
      forbidden.push_back(part);
    }
    const Legality legal = [&](const SettingRow& row) {
      for (const SettingRow& part : forbidden) {
        bool matches = true;
        for (size_t f = 0; f < row.size(); ++f) {
          matches = matches && (part[f] == unset || part[f] == row[f]);
        }
        if (matches) return false;
      }
      return true;
    };
    expect_covering(factors, legal, covering_array(factors, legal));
    if (HasFatalFailure()) FAIL() << "case " << i;
  }
}

// A predicate that only knows complete rows is enough.
TEST(CoveringArray, ThePredicateMayWaitForCompleteRows) {
  const auto factors = factors_of({3, 3, 3, 3});
  const Legality legal = [](const SettingRow& row) {
    int sum = 0;
    for (int setting : row) {
      if (setting == unset) return true;
      sum += setting;
    }
    return sum % 3 == 0;
  };
  expect_covering(factors, legal, covering_array(factors, legal));
}

TEST(CoveringArray, NothingLegalGivesNoRows) {
  const auto factors = factors_of({2, 3});
  const auto array = covering_array(factors, [](const SettingRow&) { return false; });
  EXPECT_TRUE(array.rows.empty());
  EXPECT_EQ(array.impossible.size(), 6u);
}

TEST(CoveringArray, TheSameArgumentsGiveTheSameRows) {
  const auto factors = factors_of({4, 3, 3, 2});
  const auto first = covering_array(factors, anything, {.seed = 7});
  EXPECT_EQ(first.rows, covering_array(factors, anything, {.seed = 7}).rows);
  EXPECT_NE(first.rows, covering_array(factors, anything, {.seed = 8}).rows);
}

TEST(CoveringArray, RefusesFactorsWithoutSettings) {
  EXPECT_THROW(covering_array({}, anything), Error);
  EXPECT_THROW(covering_array({{"tp", {"1"}}, {"cp", {}}}, anything), Error);
}

TEST(CoveringArray, RowsReadAsOptions) {
  const std::vector<Factor> factors = {{"tp", {"1", "2"}}, {"cp", {"1"}}, {"name", {"a", "b"}}};
  EXPECT_EQ(text_of(factors, SettingRow{1, unset, 0}), "tp=2 name=a");
  EXPECT_EQ(text_of(factors, SettingPair{0, 0, 2, 1}), "tp=1 name=b");
}

}  // namespace
}  // namespace shoestring
