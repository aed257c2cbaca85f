#pragma once
// AdamW on runs of consecutive elements (Loshchilov & Hutter 2019, algorithm 2), in one pass over
// master weight, gradient and moments that also writes the bf16 compute copy.
//
//   m = b1 m + (1 - b1) g          g: gradient times gradient_scale
//   v = b2 v + (1 - b2) g g
//   p = p - (step_size * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon) + decay * p)
//
// Multiplications and additions are never fused, so every instruction set, thread count and way of
// cutting the elements gives the same bits.

#include <cmath>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace shoestring {

template <class T>
struct AdamwCoefficients {
  T step_size = 0;                               // lr times the parameter's multiplier
  T decay = 0;                                   // lr times the weight decay, old p
  T beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0;  // rest = 1 - beta
  T correction1 = 1, correction2 = 1;            // 1 / (1 - beta^t)
  T epsilon = 0;
  T gradient_scale = 1;
};

struct AdamwSettings {
  double step_size = 0, decay = 0, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, gradient_scale = 1;
};

// `t` counts updates from 1.
template <class T>
AdamwCoefficients<T> adamw_coefficients(const AdamwSettings& s, int64_t t) {
  const double n = static_cast<double>(t);
  return {.step_size = static_cast<T>(s.step_size),
          .decay = static_cast<T>(s.decay),
          .beta1 = static_cast<T>(s.beta1),
          .rest1 = static_cast<T>(1 - s.beta1),
          .beta2 = static_cast<T>(s.beta2),
          .rest2 = static_cast<T>(1 - s.beta2),
          .correction1 = static_cast<T>(1 / (1 - std::pow(s.beta1, n))),
          .correction2 = static_cast<T>(1 / (1 - std::pow(s.beta2, n))),
          .epsilon = static_cast<T>(s.epsilon),
          .gradient_scale = static_cast<T>(s.gradient_scale)};
}

// One element: the plain twin of the kernel (double: the oracle of the tests) and its tail loop.
template <class T>
void adamw_element(const AdamwCoefficients<T>& c, T gradient, T& p, T& m, T& v) {
  const T g = gradient * c.gradient_scale;
  m = c.beta1 * m + c.rest1 * g;
  v = c.beta2 * v + c.rest2 * (g * g);
  const T u = m * c.correction1 / (std::sqrt(v * c.correction2) + c.epsilon);
  p = p - (c.step_size * u + c.decay * p);
}

// Random bits for stochastic rounding: a function of (seed, parameter, step, element), so that
// replicas, shards and replays round alike. One set of keys serves 2^32 elements.
struct RoundingKeys {
  uint32_t word[4] = {};
};
RoundingKeys rounding_keys(uint64_t seed, std::string_view name, int64_t step, uint32_t high);

// 32 bits for element `index` (its low 32 bits); `which` 0: moments, 1: compute copy.
inline uint32_t rounding_bits(const RoundingKeys& keys, uint32_t index, int which) {
  uint32_t x = index ^ keys.word[2 * which];
  x = (x ^ (x >> 16)) * 0x7feb352du + keys.word[2 * which + 1];
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// Consecutive elements of one parameter. Moments are f32 or bf16; they are computed in f32, used
// unrounded in this step and rounded when stored.
struct AdamwRun {
  int64_t elements = 0;
  float* master = nullptr;
  const float* gradient = nullptr;
  BFloat16* copy = nullptr;  // null: no compute copy
  void* m = nullptr;
  void* v = nullptr;
  Dtype moments = Dtype::f32;
  bool stochastic = false;  // rounding of bf16 moments and of the copy
  RoundingKeys keys = {};   // with `stochastic`
  uint32_t first = 0;       // low 32 bits of the first element's index; a run never wraps
};

// On the calling thread.
void adamw_run(const AdamwRun& run, const AdamwCoefficients<float>& c);

// Only the compute copy, from the masters as they are: the copy adamw_run wrote.
void copy_run(const AdamwRun& run);

}  // namespace shoestring
