#include "launcher/step_flop.h"

#include <algorithm>

namespace shoestring {

int64_t attended_pairs(const MicroBatch& micro, int64_t window) {
  int64_t pairs = 0;
  for (int64_t row = 0; row < micro.sequences; ++row) {
    for (int64_t t = 0; t < micro.length; ++t) {
      int64_t first = micro.first_key[static_cast<size_t>(row * micro.length + t)];
      if (window > 0) first = std::max(first, t - window + 1);
      pairs += t - first + 1;
    }
  }
  return pairs;
}

double training_flop(const ModelConfig& model, int64_t tokens, double pairs) {
  return static_cast<double>(tokens) * training_flop_per_token(model, 0) +
         training_flop_per_pair(model) * pairs;
}

}  // namespace shoestring
