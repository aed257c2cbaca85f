#pragma once
// Cross-entropy of one row of logits in plain loops on any scalar: the oracle, and the path of f64.
//
//   lse = log sum_v e^z_v,  loss = lse - z_label,  penalty = c lse^2

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>

namespace shoestring::reference {

template <class S>
struct LossRow {
  S loss = 0, penalty = 0, lse = 0;
};

// The largest logit (for complex numbers by real part) is taken out before the exponential.
template <class S>
LossRow<S> loss_row(const S* z, int64_t vocabulary, int64_t label, double z_coefficient) {
  using std::exp;
  using std::log;
  S most = z[0];
  for (int64_t v = 1; v < vocabulary; ++v) {
    if (std::real(z[v]) > std::real(most)) most = z[v];
  }
  S sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) sum += exp(z[v] - most);
  const S lse = most + log(sum);
  return {lse - z[label], z_coefficient * lse * lse, lse};
}

}  // namespace shoestring::reference
