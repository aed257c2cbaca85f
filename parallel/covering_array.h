#pragma once
// Few combinations of settings that still try every pair of them: a pairwise covering array with
// constraints, built greedily (AETG: Cohen, Dalal, Fredman, Patton 1997, IEEE TSE 23(7)). Rows are
// found one by one; each takes the best of some random completions of a pair that is missing. Most
// faults that depend on settings depend on two of them.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace shoestring {

struct Factor {
  std::string name;
  std::vector<std::string> settings;
};

// The index of each factor's setting; `unset` while a row is being built.
using SettingRow = std::vector<int>;
constexpr int unset = -1;

// May a row be used? Asked of rows with unset factors too, and may then say yes when it cannot
// tell, but must not say no when some completion is legal. The more it refuses early, the faster
// the search.
using Legality = std::function<bool(const SettingRow&)>;

struct SettingPair {
  int factor = 0, setting = 0, other_factor = 0, other_setting = 0;  // factor < other_factor
  bool operator==(const SettingPair&) const = default;
};

struct CoveringArray {
  std::vector<SettingRow> rows;
  // Pairs that no legal row has; every other pair is in some row.
  std::vector<SettingPair> impossible;
};

struct CoveringOptions {
  int candidates = 30;  // completions tried for each row
  uint64_t seed = 1;
};

// The same rows for the same arguments, everywhere. At least one factor, each with a setting; no
// rows when no row is legal.
CoveringArray covering_array(const std::vector<Factor>& factors, const Legality& legal,
                             const CoveringOptions& options = {});

// "tp=2 schedule=1f1b"; factors that are unset are left out.
std::string text_of(const std::vector<Factor>& factors, const SettingRow& row);
std::string text_of(const std::vector<Factor>& factors, const SettingPair& pair);

}  // namespace shoestring
