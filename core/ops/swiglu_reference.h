#pragma once
// SwiGLU in plain loops on any scalar: y = silu(g) u with silu(g) = g / (1 + e^-g);
// dg = dy u s (1 + g (1 - s)) with s = 1 / (1 + e^-g), du = dy silu(g) (Shazeer 2020, equation 6).

#include <cmath>
#include <complex>
#include <cstdint>

namespace shoestring::reference {

// gu [rows, 2 width]: gate, then up; y [rows, width].
template <class S>
void swiglu_forward(int64_t rows, int64_t width, const S* gu, S* y) {
  using std::exp;
  for (int64_t row = 0; row < rows; ++row) {
    const S *gate = gu + row * 2 * width, *up = gate + width;
    for (int64_t i = 0; i < width; ++i)
      y[row * width + i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
  }
}

template <class S>
struct SwigluBackward {
  int64_t rows = 0, width = 0;
  const S *gu = nullptr, *dy = nullptr;
  S* dgu = nullptr;
};

template <class S>
void swiglu_backward(const SwigluBackward<S>& a) {
  using std::exp;
  for (int64_t row = 0; row < a.rows; ++row) {
    const int64_t at = row * 2 * a.width;
    for (int64_t i = 0; i < a.width; ++i) {
      const S gate = a.gu[at + i], up = a.gu[at + a.width + i], dy = a.dy[row * a.width + i];
      const S s = 1.0 / (1.0 + exp(-gate));
      a.dgu[at + i] = dy * up * s * (1.0 + gate * (1.0 - s));
      a.dgu[at + a.width + i] = dy * gate * s;
    }
  }
}

}  // namespace shoestring::reference
