#include "parallel/covering_array.h"

#include <algorithm>
#include <random>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

enum class PairState : uint8_t { missing, covered, impossible };

class Builder {
 public:
  Builder(const std::vector<Factor>& factors, const Legality& legal, const CoveringOptions& options)
      : legal_(legal), options_(options), random_(options.seed) {
    check(!factors.empty(), "a covering array has at least one factor");
    for (const Factor& factor : factors) {
      if (factor.settings.empty()) fail(cat("the factor ", factor.name, " has no settings"));
      first_.push_back(total_);
      counts_.push_back(static_cast<int>(factor.settings.size()));
      total_ += factor.settings.size();
    }
    states_.resize(total_ * total_, PairState::missing);
    conflicts_.resize(counts_.size());
  }

  CoveringArray build() {
    if (counts_.size() == 1) return single();
    for (SettingPair pair; find_missing(pair);) {
      SettingRow best;
      int64_t best_gain = 0;
      for (int i = 0; i < options_.candidates || i == 0; ++i) {
        SettingRow row = empty_row();
        row[index(pair.factor)] = pair.setting;
        row[index(pair.other_factor)] = pair.other_setting;
        if (!complete(row)) break;
        const int64_t gain = gain_of(row);
        if (gain > best_gain) {
          best_gain = gain;
          best = row;
        }
      }
      if (best.empty()) {
        state(pair) = PairState::impossible;
        result_.impossible.push_back(pair);
      } else {
        take(best);
      }
    }
    return std::move(result_);
  }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  SettingRow empty_row() const { return SettingRow(counts_.size(), unset); }
  size_t place(size_t factor, int setting) const { return first_[factor] + index(setting); }
  PairState& state(size_t f, int a, size_t g, int b) {
    const size_t x = place(f, a), y = place(g, b);
    return states_[std::min(x, y) * total_ + std::max(x, y)];
  }
  PairState& state(const SettingPair& p) {
    return state(index(p.factor), p.setting, index(p.other_factor), p.other_setting);
  }

  CoveringArray single() {
    for (int s = 0; s < counts_[0]; ++s) {
      if (legal_({s})) result_.rows.push_back({s});
    }
    return std::move(result_);
  }

  // The missing pair whose two settings miss most partners: hard ones first. Ties: the first.
  bool find_missing(SettingPair& found) {
    std::vector<int64_t> missing(total_);
    each_missing([&](const SettingPair& p) {
      ++missing[place(index(p.factor), p.setting)];
      ++missing[place(index(p.other_factor), p.other_setting)];
    });
    int64_t most = 0;
    each_missing([&](const SettingPair& p) {
      const int64_t both = missing[place(index(p.factor), p.setting)] +
                           missing[place(index(p.other_factor), p.other_setting)];
      if (both > most) {
        most = both;
        found = p;
      }
    });
    return most > 0;
  }

  template <class F>
  void each_missing(const F& visit) {
    for (size_t f = 0; f < counts_.size(); ++f) {
      for (size_t g = f + 1; g < counts_.size(); ++g) {
        for (int a = 0; a < counts_[f]; ++a) {
          for (int b = 0; b < counts_[g]; ++b) {
            if (state(f, a, g, b) != PairState::missing) continue;
            visit({static_cast<int>(f), a, static_cast<int>(g), b});
          }
        }
      }
    }
  }

  // Fills the row factor by factor, each with the setting that covers most missing pairs with those
  // before it; goes back where that leads nowhere. False: no completion is legal. The order of
  // factors is random, but those that had no legal setting before come first, the more often the
  // sooner (weighted degrees: Boussemart et al. 2004, ECAI): else all settings of what has nothing
  // to do with a conflict would be tried between its two sides.
  bool complete(SettingRow& row) {
    std::vector<size_t> open;
    for (size_t f = 0; f < row.size(); ++f) {
      if (row[f] == unset) open.push_back(f);
    }
    for (size_t i = open.size(); i > 1; --i) std::swap(open[i - 1], open[random_() % i]);
    return legal_(row) && fill(row, open, 0);
  }

  bool fill(SettingRow& row, std::vector<size_t>& open, size_t depth) {
    if (depth == open.size()) return true;
    const auto rest = open.begin() + static_cast<std::ptrdiff_t>(depth);
    const auto hardest = std::max_element(
        rest, open.end(), [&](size_t a, size_t b) { return conflicts_[a] < conflicts_[b]; });
    std::iter_swap(rest, hardest);
    const size_t factor = open[depth];
    for (int setting : by_gain(row, factor)) {
      row[factor] = setting;
      if (legal_(row) && fill(row, open, depth + 1)) return true;
    }
    row[factor] = unset;
    ++conflicts_[factor];
    return false;
  }

  // The best setting first; random among equals.
  std::vector<int> by_gain(const SettingRow& row, size_t factor) {
    struct Ranked {
      int64_t gain = 0;
      uint64_t tie = 0;
      int setting = 0;
    };
    std::vector<Ranked> ranked;
    for (int s = 0; s < counts_[factor]; ++s) {
      int64_t gain = 0;
      for (size_t g = 0; g < row.size(); ++g) {
        const bool counts = g != factor && row[g] != unset;
        gain += counts && state(factor, s, g, row[g]) == PairState::missing ? 1 : 0;
      }
      ranked.push_back({gain, random_(), s});
    }
    std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
      return a.gain != b.gain ? a.gain > b.gain : a.tie < b.tie;
    });
    std::vector<int> settings;
    for (const Ranked& r : ranked) settings.push_back(r.setting);
    return settings;
  }

  int64_t gain_of(const SettingRow& row) {
    int64_t gain = 0;
    for (size_t f = 0; f < row.size(); ++f) {
      for (size_t g = f + 1; g < row.size(); ++g) {
        gain += state(f, row[f], g, row[g]) == PairState::missing ? 1 : 0;
      }
    }
    return gain;
  }

  void take(const SettingRow& row) {
    for (size_t f = 0; f < row.size(); ++f) {
      for (size_t g = f + 1; g < row.size(); ++g) {
        state(f, row[f], g, row[g]) = PairState::covered;
      }
    }
    result_.rows.push_back(row);
  }

  const Legality& legal_;
  CoveringOptions options_;
  std::mt19937_64 random_;          // its numbers are the same everywhere; no distributions
  std::vector<size_t> first_;       // of a factor's settings, in the numbering of all settings
  std::vector<int> counts_;         // settings by factor
  size_t total_ = 0;                // settings
  std::vector<PairState> states_;   // by two settings
  std::vector<int64_t> conflicts_;  // how often a factor had no legal setting
  CoveringArray result_;
};

}  // namespace

CoveringArray covering_array(const std::vector<Factor>& factors, const Legality& legal,
                             const CoveringOptions& options) {
  return Builder(factors, legal, options).build();
}

std::string text_of(const std::vector<Factor>& factors, const SettingRow& row) {
  std::string text;
  for (size_t f = 0; f < row.size(); ++f) {
    if (row[f] == unset) continue;
    const Factor& factor = factors.at(f);
    append(text, text.empty() ? "" : " ", factor.name, "=",
           factor.settings.at(static_cast<size_t>(row[f])));
  }
  return text;
}

std::string text_of(const std::vector<Factor>& factors, const SettingPair& pair) {
  SettingRow row(factors.size(), unset);
  row.at(static_cast<size_t>(pair.factor)) = pair.setting;
  row.at(static_cast<size_t>(pair.other_factor)) = pair.other_setting;
  return text_of(factors, row);
}

}  // namespace shoestring
