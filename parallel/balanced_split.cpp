#include "parallel/balanced_split.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"

namespace shoestring {
namespace {

// The best way to give the first `b` blocks to the first stages.
struct Best {
  double dearest = std::numeric_limits<double>::infinity(), squares = 0;
  size_t before = 0;  // blocks of the stages before the last of them

  bool operator<(const Best& other) const {
    return dearest != other.dearest ? dearest < other.dearest : squares < other.squares;
  }
};

}  // namespace

std::vector<double> stage_costs(const PieceCosts& costs, const std::vector<int64_t>& blocks) {
  std::vector<double> all;
  size_t at = 0;
  for (const int64_t count : blocks) {
    double cost = all.empty() ? costs.embedding : 0;
    for (int64_t i = 0; i < count; ++i) cost += costs.blocks.at(at++);
    all.push_back(cost);
  }
  check(at == costs.blocks.size() && !all.empty(), "a split of another model");
  all.back() += costs.head;
  return all;
}

std::vector<int64_t> balanced_split(const PieceCosts& costs, int stages) {
  const size_t blocks = costs.blocks.size(), n = static_cast<size_t>(stages);
  if (stages < 1 || blocks + 2 < n) {
    fail_usage(cat(counted(static_cast<int64_t>(blocks), "block"), " for ",
                   counted(stages, "pipeline stage"),
                   ": only the first and the last may be without one"));
  }
  std::vector<double> sums(blocks + 1);
  for (size_t i = 0; i < blocks; ++i) sums[i + 1] = sums[i] + costs.blocks[i];
  // best[s][b]: the first b blocks on the first s stages.
  std::vector<std::vector<Best>> best(n + 1, std::vector<Best>(blocks + 1));
  best[0][0] = {.dearest = 0};
  for (size_t s = 1; s <= n; ++s) {
    const bool end = s == 1 || s == n;
    const double own = (s == 1 ? costs.embedding : 0) + (s == n ? costs.head : 0);
    for (size_t b = 0; b <= blocks; ++b) {
      for (size_t before = 0; before + (end ? 0 : 1) <= b; ++before) {
        const Best& rest = best[s - 1][before];
        const double cost = own + sums[b] - sums[before];
        const Best found{.dearest = std::max(rest.dearest, cost),
                         .squares = rest.squares + cost * cost,
                         .before = before};
        if (found < best[s][b]) best[s][b] = found;
      }
    }
  }
  std::vector<int64_t> split(n);
  size_t at = blocks;
  for (size_t s = n; s > 0; --s) {
    const size_t before = best[s][at].before;
    split[s - 1] = static_cast<int64_t>(at - before);
    at = before;
  }
  return split;
}

}  // namespace shoestring
