// Every pair of settings of a step - axes, schedule, ZeRO, recompute, precision, model and so on -
// is in some layout of a covering array, and each of these equals one rank. With
// SHOESTRING_LAYOUT_TRIPLES=1 every triple: thousands of layouts, some ten minutes a part.

#include <chrono>
#include <set>

#include "core/environment.h"
#include "tests/conformance/step_settings.h"

namespace shoestring {
namespace {

constexpr int most_ranks = 8;
constexpr int parts = 2;  // of the array, each a test

bool has(const SettingRow& row, const SettingPair& pair) {
  return row[static_cast<size_t>(pair.factor)] == pair.setting &&
         row[static_cast<size_t>(pair.other_factor)] == pair.other_setting;
}

CoveringArray pairs_of(StepSettings& settings) {
  return covering_array(settings.factors(),
                        [&](const SettingRow& row) { return settings.legal(row); });
}

// The triples of a row, numbered.
std::vector<int64_t> triples_in(const SettingRow& row) {
  std::vector<int64_t> list;
  const auto place = [&](size_t f) { return static_cast<int64_t>(f) * 16 + row[f]; };
  for (size_t a = 0; a < row.size(); ++a) {
    for (size_t b = a + 1; b < row.size(); ++b) {
      for (size_t c = b + 1; c < row.size(); ++c) {
        list.push_back((place(a) * 1024 + place(b)) * 1024 + place(c));
      }
    }
  }
  return list;
}

// The pairs beside each setting make all triples; rows without a new one are left out.
std::vector<SettingRow> triples_of(StepSettings& settings) {
  std::vector<SettingRow> rows;
  std::set<int64_t> seen;
  for (size_t f = 0; f < settings.factors().size(); ++f) {
    for (int s = 0; s < static_cast<int>(settings.factors()[f].settings.size()); ++s) {
      const CoveringArray beside = covering_array(settings.factors(), [&](const SettingRow& row) {
        return (row[f] == unset || row[f] == s) && settings.legal(row);
      });
      for (const SettingRow& row : beside.rows) {
        const size_t before = seen.size();
        const std::vector<int64_t> triples = triples_in(row);
        seen.insert(triples.begin(), triples.end());
        if (seen.size() > before) rows.push_back(row);
      }
    }
  }
  return rows;
}

TEST(MeshSettings, EveryPairThatIsLegalIsInALayout) {
  StepSettings settings(most_ranks);
  const CoveringArray array = pairs_of(settings);
  const std::vector<Factor>& factors = settings.factors();
  for (const SettingRow& row : array.rows) EXPECT_TRUE(settings.legal(row));
  size_t pairs = 0;
  for (int f = 0; f < static_cast<int>(factors.size()); ++f) {
    for (int g = f + 1; g < static_cast<int>(factors.size()); ++g) {
      const size_t of_f = factors[static_cast<size_t>(f)].settings.size();
      const size_t of_g = factors[static_cast<size_t>(g)].settings.size();
      for (size_t k = 0; k < of_f * of_g; ++k) {
        const SettingPair pair{f, static_cast<int>(k / of_g), g, static_cast<int>(k % of_g)};
        const bool covered =
            std::ranges::any_of(array.rows, [&](const SettingRow& row) { return has(row, pair); });
        const bool impossible = std::ranges::find(array.impossible, pair) != array.impossible.end();
        EXPECT_NE(covered, impossible) << text_of(factors, pair);
        ++pairs;
      }
    }
  }
  // What no layout can have is little, and known: a schedule without a pipeline and the like.
  std::string impossible;
  for (const SettingPair& pair : array.impossible) {
    append(impossible, text_of(factors, pair), "\n");
  }
  EXPECT_LE(array.impossible.size(), pairs / 10) << impossible;
  RecordProperty("rows", static_cast<int>(array.rows.size()));
  RecordProperty("pairs", static_cast<int>(pairs - array.impossible.size()));
}

// The axis `capacity` changes what one rank computes.
TEST(MeshSettings, CapacityDropsRows) {
  OneRank alone;
  for (const char* model : {"mixtral", "deepseek-v3"}) {
    MeshCase c;
    c.model = step_model(model);
    const double all = alone.run(c).loss;
    c.model.moe.capacity = tight_capacity;
    EXPECT_NE(alone.run(c).loss, all) << model;
  }
}

class MeshSettingsPart : public testing::TestWithParam<int> {};

TEST_P(MeshSettingsPart, EqualsOneRank) {
  StepSettings settings(most_ranks);
  const bool triples = environment_variable("SHOESTRING_LAYOUT_TRIPLES").value_or("") == "1";
  const std::vector<SettingRow> rows = triples ? triples_of(settings) : pairs_of(settings).rows;
  OneRank alone;
  for (size_t i = static_cast<size_t>(GetParam()); i < rows.size(); i += parts) {
    SCOPED_TRACE(cat("row ", i, ": ", text_of(settings.factors(), rows[i])));
    try {
      expect_step_parity(settings.case_of(rows[i]), alone);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, MeshSettingsPart, testing::Range(0, parts));

}  // namespace
}  // namespace shoestring
