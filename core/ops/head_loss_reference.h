#pragma once
// Cross-entropy of one row of logits in plain loops on any scalar: the oracle, and the path of f64.
//
//   lse = log sum_v e^z_v,  loss = lse - z_label,  penalty = c lse^2
//   d/dz_v of scale (loss + penalty) = scale ((1 + 2 c lse) e^(z_v - lse) - [v = label])

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>

namespace shoestring::reference {

template <class S>
struct LossRow {
  S loss = 0, penalty = 0;
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
  return {lse - z[label], z_coefficient * lse * lse};
}

// z [vocabulary] becomes the gradient of scale * (loss + penalty).
struct LossSeed {
  int64_t vocabulary = 0, label = 0;
  double z_coefficient = 0, scale = 1;
};
inline void loss_row_gradient(const LossSeed& seed, double* z) {
  double most = z[0];
  for (int64_t v = 1; v < seed.vocabulary; ++v) most = std::max(most, z[v]);
  double sum = 0;
  for (int64_t v = 0; v < seed.vocabulary; ++v) sum += std::exp(z[v] - most);
  const double lse = most + std::log(sum);
  const double slope = seed.scale * (1 + 2 * seed.z_coefficient * lse);
  for (int64_t v = 0; v < seed.vocabulary; ++v) z[v] = slope * std::exp(z[v] - lse);
  z[seed.label] -= seed.scale;
}

}  // namespace shoestring::reference
