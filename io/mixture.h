#pragma once
// Which source a sample comes from. Samples are dealt out so that after any number of them every
// source has its share to within a few samples, and the number dealt to each source so far is a
// closed form: no state, no history.
//
// count_0(n) = floor(n w_0 / (w_0 + ... + w_{k-1})), and the n - count_0(n) others are dealt to the
// remaining sources by the same rule. Each count grows by 0 or 1 with n and they sum to n. Weights
// are first rounded to integers of 32 bits, so that every machine deals alike.

#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {

class Mixture {
 public:
  // Weights >= 0, finite, at least one above 0 (usage error); they need not sum to 1.
  explicit Mixture(const std::vector<double>& weights);

  int64_t sources() const { return static_cast<int64_t>(parts_.size()); }
  // The weight as dealt, a fraction of all samples.
  double share(int64_t source) const;
  // Samples of each source among samples [0, n).
  std::vector<int64_t> counts(int64_t n) const;

  struct Draw {
    int64_t source = 0;
    int64_t index = 0;  // how many samples this source gave before this one
  };
  Draw draw(int64_t sample) const;

 private:
  std::vector<uint64_t> parts_;  // integer weights
  std::vector<uint64_t> rest_;   // sum of the weights from here on
};

}  // namespace shoestring
