#pragma once
// Rotation of heads in plain loops on any scalar: the oracle, and the path of f64 tensors.

#include <cstdint>

namespace shoestring::reference {

// One head: `rotated` dims from `first` on turn, the others are copied. cos and sin [rotated / 2]
// belong to the row's position; direction 1 turns, -1 turns back.
template <class S>
struct RotateHead {
  int64_t head_dim = 0, rotated = 0, first = 0;
  bool interleaved = false;
  double direction = 1;
  const S* x = nullptr;
  const float *cos = nullptr, *sin = nullptr;
  S* y = nullptr;
};

template <class S>
void rotate_head(const RotateHead<S>& h) {
  for (int64_t i = 0; i < h.head_dim; ++i) h.y[i] = h.x[i];
  const int64_t half = h.rotated / 2;
  for (int64_t j = 0; j < half; ++j) {
    const int64_t a = h.first + (h.interleaved ? 2 * j : j);
    const int64_t b = h.interleaved ? a + 1 : a + half;
    const double c = h.cos[j], s = h.direction * h.sin[j];
    const S xa = h.x[a], xb = h.x[b];
    h.y[a] = xa * c - xb * s;
    h.y[b] = xb * c + xa * s;
  }
}

}  // namespace shoestring::reference
