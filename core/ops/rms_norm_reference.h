#pragma once
// RMSNorm with residual addition in plain loops, on any scalar: double is the oracle and runs f64
// tensors, std::complex<double> makes complex-step gradients.
//
//   h = x + m delta,  r = 1 / sqrt(mean(h^2) + eps),  n = h r gain      (per row of `width`)
//   dh' = dh + r (g - h r mean(g h r)) with g = dn gain;  dx = dh', ddelta = m dh'
//   dgain = sum over rows of dn h r
// (Zhang and Sennrich 2019, equation 4.)

#include <cmath>
#include <complex>
#include <cstdint>

namespace shoestring::reference {

template <class S>
struct RmsNormForward {
  int64_t rows = 0, width = 0;
  double eps = 0, delta_multiplier = 1;
  const S* x = nullptr;
  const S* delta = nullptr;  // null: no addition
  const S* gain = nullptr;   // [width]
  S* h = nullptr;            // null: not wanted
  S* n = nullptr;
  S* inverse = nullptr;  // [rows]
};

template <class S>
void rms_norm_forward(const RmsNormForward<S>& a) {
  using std::sqrt;
  for (int64_t row = 0; row < a.rows; ++row) {
    const int64_t at = row * a.width;
    const auto sum_at = [&](int64_t i) {
      return a.delta ? a.x[at + i] + a.delta[at + i] * a.delta_multiplier : a.x[at + i];
    };
    S squares = 0;
    for (int64_t i = 0; i < a.width; ++i) squares += sum_at(i) * sum_at(i);
    const S inverse = 1.0 / sqrt(squares / static_cast<double>(a.width) + a.eps);
    a.inverse[row] = inverse;
    for (int64_t i = 0; i < a.width; ++i) {
      const S h = sum_at(i);
      if (a.h) a.h[at + i] = h;
      a.n[at + i] = h * inverse * a.gain[i];
    }
  }
}

template <class S>
struct RmsNormBackward {
  int64_t rows = 0, width = 0;
  double delta_multiplier = 1;
  const S *h = nullptr, *inverse = nullptr, *gain = nullptr;
  const S* dh = nullptr;  // null: zero
  const S* dn = nullptr;
  S* dx = nullptr;
  S* ddelta = nullptr;  // null: not wanted
  S* dgain = nullptr;   // [width], added to
};

template <class S>
void rms_norm_backward(const RmsNormBackward<S>& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    const int64_t at = row * a.width;
    const S inverse = a.inverse[row];
    S dot = 0;
    for (int64_t i = 0; i < a.width; ++i) {
      dot += a.dn[at + i] * a.gain[i] * a.h[at + i] * inverse;
      a.dgain[i] += a.dn[at + i] * a.h[at + i] * inverse;
    }
    dot /= static_cast<double>(a.width);
    for (int64_t i = 0; i < a.width; ++i) {
      S dx = inverse * (a.dn[at + i] * a.gain[i] - a.h[at + i] * inverse * dot);
      if (a.dh) dx += a.dh[at + i];
      a.dx[at + i] = dx;
      if (a.ddelta) a.ddelta[at + i] = dx * a.delta_multiplier;
    }
  }
}

}  // namespace shoestring::reference
