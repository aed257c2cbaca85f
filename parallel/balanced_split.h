#pragma once
// Blocks of pipeline stages by what they cost.

#include <cstdint>
#include <vector>

namespace shoestring {

// What the pieces of a model cost, in any one unit.
struct PieceCosts {
  double embedding = 0, head = 0;  // the head's with its loss and prediction modules
  std::vector<double> blocks = {};
};

// Of each stage of a split.
std::vector<double> stage_costs(const PieceCosts& costs, const std::vector<int64_t>& blocks);

// Consecutive blocks of each of `stages` stages, so that the dearest stage costs as little as it
// can; of such splits one whose sum of squares is least. The first stage has the embedding, the
// last one the head; those two may be without a block, stages between have one at least. A usage
// error where there are too few blocks.
std::vector<int64_t> balanced_split(const PieceCosts& costs, int stages);

}  // namespace shoestring
