#include "io/mixture.h"

#include <cmath>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

uint64_t share_of(uint64_t n, uint64_t part, uint64_t whole) {
  __extension__ using Wide = unsigned __int128;
  return whole == 0 ? 0 : static_cast<uint64_t>(static_cast<Wide>(n) * part / whole);
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  double largest = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!std::isfinite(weights[i]) || weights[i] < 0) {
      fail_usage(cat("weight ", weights[i], " of source ", i, ": weights are numbers >= 0"));
    }
    largest = std::max(largest, weights[i]);
  }
  if (largest == 0) fail_usage("no source has a weight above 0: there is nothing to train on");
  uint64_t sum = 0;
  for (double weight : weights) {
    const uint64_t part = static_cast<uint64_t>(std::llround(weight / largest * 0x1p32));
    // A weight that is not 0 is never rounded to 0.
    parts_.push_back(weight > 0 && part == 0 ? 1 : part);
    sum += parts_.back();
  }
  for (uint64_t part : parts_) {
    rest_.push_back(sum);
    sum -= part;
  }
}

double Mixture::share(int64_t source) const {
  return static_cast<double>(parts_[static_cast<size_t>(source)]) / static_cast<double>(rest_[0]);
}

std::vector<int64_t> Mixture::counts(int64_t n) const {
  std::vector<int64_t> out;
  uint64_t left = static_cast<uint64_t>(n);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const uint64_t count = share_of(left, parts_[i], rest_[i]);
    out.push_back(static_cast<int64_t>(count));
    left -= count;
  }
  return out;
}

Mixture::Draw Mixture::draw(int64_t sample) const {
  // Follow the dealing of samples n and n + 1 down the list until a source takes the difference.
  uint64_t before = static_cast<uint64_t>(sample), after = before + 1;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const uint64_t count = share_of(before, parts_[i], rest_[i]);
    const uint64_t count_after = share_of(after, parts_[i], rest_[i]);
    if (count_after > count) return {static_cast<int64_t>(i), static_cast<int64_t>(count)};
    before -= count;
    after -= count_after;
  }
  fail(cat("sample ", sample, " belongs to no source"));  // the last source with weight takes all
}

}  // namespace shoestring
