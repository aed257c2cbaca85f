#include "core/ops/kept_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/kept_attention.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// x [n] becomes softmax(scale * x).
void softmax_row(float* x, int64_t n, float scale) {
  const Floats factor = set(scale);
  Floats most = set(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lane_count() <= n; i += lane_count()) {
    const Floats scaled = hn::Mul(load(x + i, AllLanes{}), factor);
    store(scaled, x + i, AllLanes{});
    most = hn::Max(most, scaled);
  }
  float largest = maximum(most);
  for (; i < n; ++i) largest = std::max(largest, x[i] *= scale);
  const Floats shift = set(largest);
  Floats sums = set(0);
  for (i = 0; i + lane_count() <= n; i += lane_count()) {
    const Floats e = exp(hn::Sub(load(x + i, AllLanes{}), shift));
    store(e, x + i, AllLanes{});
    sums = hn::Add(sums, e);
  }
  float total = sum(sums);
  for (; i < n; ++i) total += x[i] = std::exp(x[i] - largest);
  const Floats inverse = set(1 / total);
  for_lanes(n, [&](int64_t j, auto lanes)
                   HWY_ATTR { store(hn::Mul(load(x + j, lanes), inverse), x + j, lanes); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(softmax_row);

void softmax(float* x, int64_t n, double scale) {
  HWY_DYNAMIC_DISPATCH(softmax_row)(x, n, static_cast<float>(scale));
}
void softmax(double* x, int64_t n, double scale) {
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
  const double largest = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - largest);
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

// Four queries at a time: what the products below share of a read.
template <class T, class S>
void attend(const KeptRows<T>& rows, const Vectors<const S>& q, const Vectors<S>& out) {
  constexpr int64_t group = 4;
  const int64_t n = rows.k.rows;
  std::vector<S> weights(static_cast<size_t>(std::min(group, q.count) * n));
  for (int64_t j = 0; j < q.count; j += group) {
    const int64_t count = std::min(group, q.count - j);
    dot_rows(rows.k, Vectors<const S>{q.data + j * q.stride, count, q.stride},
             Vectors<S>{weights.data(), count, n});
    for (int64_t i = 0; i < count; ++i) softmax(weights.data() + i * n, n, rows.scale);
    sum_rows(rows.v, Vectors<const S>{weights.data(), count, n},
             Vectors<S>{out.data + j * out.stride, count, out.stride});
  }
}

}  // namespace

void attend_kept(const KeptRows<float>& rows, const Vectors<const float>& q,
                 const Vectors<float>& out) {
  attend(rows, q, out);
}
void attend_kept(const KeptRows<BFloat16>& rows, const Vectors<const float>& q,
                 const Vectors<float>& out) {
  attend(rows, q, out);
}
void attend_kept(const KeptRows<double>& rows, const Vectors<const double>& q,
                 const Vectors<double>& out) {
  attend(rows, q, out);
}

}  // namespace shoestring
#endif  // HWY_ONCE
