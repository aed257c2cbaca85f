#include "core/ops/logit_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/logit_rows.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// One pass over memory: a block that fits the first cache is read for its maximum and again for its
// sum; the running sum is rescaled when the maximum grows.
double log_sum_exp(float* z, int64_t n, float* maxima, float* largest) {
  float most = -std::numeric_limits<float>::infinity();
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += logit_block) {
    const int64_t size = std::min(logit_block, n - begin);
    float* here = z + begin;
    Floats high = set(most);
    int64_t i = 0;
    for (; i + lane_count() <= size; i += lane_count()) {
      high = hn::Max(high, load(here + i, AllLanes{}));
    }
    float maximum_here = maximum(high);
    for (; i < size; ++i) maximum_here = std::max(maximum_here, here[i]);
    if (maximum_here > most) {
      total *= std::exp(static_cast<double>(most) - static_cast<double>(maximum_here));
      most = maximum_here;
    }
    // Logits may be -infinity, whole blocks of them too.
    const float offset = std::isinf(most) ? 0.0f : most;
    const Floats shift = set(offset);
    Floats sums = set(0);
    for (i = 0; i + lane_count() <= size; i += lane_count()) {
      const Floats e = exp(hn::Sub(load(here + i, AllLanes{}), shift));
      if (maxima != nullptr) store(e, here + i, AllLanes{});
      sums = hn::Add(sums, e);
    }
    total += sum(sums);
    for (; i < size; ++i) {
      const float e = std::exp(here[i] - offset);
      if (maxima != nullptr) here[i] = e;
      total += e;
    }
    if (maxima != nullptr) maxima[begin / logit_block] = most;
  }
  *largest = most;
  return static_cast<double>(most) + std::log(total);
}

int64_t first_largest(const float* z, int64_t n) {
  const I32 di;
  Floats most = set(-std::numeric_limits<float>::infinity());
  auto where = hn::Zero(di);
  int64_t i = 0;
  for (; i + lane_count() <= n; i += lane_count()) {
    const Floats here = load(z + i, AllLanes{});
    const auto above = hn::Gt(here, most);
    most = hn::IfThenElse(above, here, most);
    where = hn::IfThenElse(hn::RebindMask(di, above), hn::Iota(di, static_cast<int32_t>(i)), where);
  }
  alignas(64) float values[hn::MaxLanes(F32())];
  alignas(64) int32_t indices[hn::MaxLanes(F32())];
  hn::Store(most, F32(), values);
  hn::Store(where, di, indices);
  float largest = -std::numeric_limits<float>::infinity();
  int64_t best = 0;
  for (int64_t lane = 0; lane < lane_count(); ++lane) {
    if (values[lane] < largest || (values[lane] == largest && indices[lane] >= best)) continue;
    largest = values[lane];
    best = indices[lane];
  }
  for (; i < n; ++i) {
    if (z[i] > largest) largest = z[best = i];
  }
  return best;
}

template <class T>
HWY_INLINE void scale(const float* e, int64_t n, float factor, T* dz) {
  for_lanes(n, [&](int64_t i, auto lanes)
                   HWY_ATTR { store(hn::Mul(set(factor), load(e + i, lanes)), dz + i, lanes); });
}
void scale_f32(const float* e, int64_t n, float factor, float* dz) { scale(e, n, factor, dz); }
void scale_bf16(const float* e, int64_t n, float factor, BFloat16* dz) { scale(e, n, factor, dz); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {
HWY_EXPORT(log_sum_exp);
HWY_EXPORT(first_largest);
HWY_EXPORT(scale_f32);
HWY_EXPORT(scale_bf16);
}  // namespace

double log_sum_exp_of_row(float* z, int64_t n, float* maxima, float* largest) {
  return HWY_DYNAMIC_DISPATCH(log_sum_exp)(z, n, maxima, largest);
}
int64_t first_largest_of_row(const float* z, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(first_largest)(z, n);
}
void scale_row(const float* e, int64_t n, float factor, float* dz) {
  HWY_DYNAMIC_DISPATCH(scale_f32)(e, n, factor, dz);
}
void scale_row(const float* e, int64_t n, float factor, BFloat16* dz) {
  HWY_DYNAMIC_DISPATCH(scale_bf16)(e, n, factor, dz);
}

}  // namespace shoestring
#endif  // HWY_ONCE
