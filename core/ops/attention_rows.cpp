#include "core/ops/attention_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/attention_rows.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, 16>;
using I = hn::RebindToSigned<F>;
using U = hn::RebindToUnsigned<F>;
using Vec = hn::Vec<F>;
constexpr int64_t lanes = hn::MaxLanes(F());

// 2^x for x <= 1: x = n + r with |r| <= 1/2, a polynomial in r fitted here for least relative error
// (exact: 1.9e-9; else 2.6e-6, far below bf16's 2e-3), times 2^n. 0 below -126.5; NaN stays NaN.
template <bool exact>
HWY_INLINE Vec exp2(Vec x) {
  const F d;
  const I di;
  // Adding 1.5 * 2^23 + 127 leaves n + 127, the exponent's bits, in the sum's lowest bits.
  const Vec magic = hn::Set(d, 12582912.0f + 127.0f);
  x = hn::Max(hn::Set(d, -127.0f), x);
  const Vec shifted = hn::Add(x, magic);
  const Vec r = hn::Sub(x, hn::Sub(shifted, magic));
  Vec p;
  if constexpr (exact) {
    p = hn::MulAdd(hn::Set(d, 1.534581204e-04f), r, hn::Set(d, 1.339993136e-03f));
    p = hn::MulAdd(p, r, hn::Set(d, 9.618488958e-03f));
    p = hn::MulAdd(p, r, hn::Set(d, 5.550328777e-02f));
    p = hn::MulAdd(p, r, hn::Set(d, 2.402264689e-01f));
    p = hn::MulAdd(p, r, hn::Set(d, 6.931472057e-01f));
    p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  } else {
    p = hn::MulAdd(hn::Set(d, 9.570101947e-03f), r, hn::Set(d, 5.591786159e-02f));
    p = hn::MulAdd(p, r, hn::Set(d, 2.402474484e-01f));
    p = hn::MulAdd(p, r, hn::Set(d, 6.931218146e-01f));
    p = hn::MulAdd(p, r, hn::Set(d, 9.999992614e-01f));
  }
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::Mul(p, power);
}

// Two vectors as bf16 pairs, rounded to nearest (ties away from zero).
HWY_INLINE Vec pair_up(Vec first, Vec second) {
  const U du;
  const auto half = hn::Set(du, 0x8000u);
  const auto low = hn::ShiftRight<16>(hn::Add(hn::BitCast(du, first), half));
  const auto high = hn::And(hn::Add(hn::BitCast(du, second), half), hn::Set(du, 0xffff0000u));
  return hn::BitCast(F(), hn::Or(low, high));
}

// Which lanes of the vector at column j lie in [low, high).
HWY_INLINE hn::Mask<F> inside(int64_t j, int32_t low, int32_t high) {
  const I di;
  const auto column = hn::Iota(di, static_cast<int32_t>(j));
  return hn::RebindMask(
      F(), hn::And(hn::Gt(column, hn::Set(di, low - 1)), hn::Lt(column, hn::Set(di, high))));
}

HWY_INLINE Vec visible_scores(const float* s, int64_t j, int32_t low, int32_t high) {
  return hn::IfThenElse(inside(j, low, high), hn::LoadU(F(), s + j),
                        hn::Set(F(), -std::numeric_limits<float>::infinity()));
}

template <bool whole>
HWY_INLINE float row_maximum(const float* s, int32_t low, int32_t high) {
  const F d;
  Vec most = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int64_t from = whole ? 0 : low / lanes * lanes, to = whole ? block_keys : high;
  for (int64_t j = from; j < to; j += lanes) {
    most = hn::Max(most, whole ? hn::LoadU(d, s + j) : visible_scores(s, j, low, high));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

// Weights of one row; returns their sums by lane.
template <bool whole, bool exact>
HWY_INLINE Vec row_weights(float* s, int32_t low, int32_t high, float factor, float maximum) {
  const F d;
  const Vec f = hn::Set(d, factor), m = hn::Set(d, maximum);
  Vec sum = hn::Zero(d);
  for (int64_t j = 0; j < block_keys; j += lanes) {
    Vec p = hn::Zero(d);
    if (whole || (j + lanes > low && j < high)) {
      p = exp2<exact>(hn::MulSub(f, hn::LoadU(d, s + j), m));
      if (!whole) p = hn::IfThenElseZero(inside(j, low, high), p);
    }
    sum = hn::Add(sum, p);
    hn::StoreU(p, d, s + j);
  }
  return sum;
}

HWY_INLINE void scale_row(float* x, int64_t n, float by) {
  const F d;
  const Vec f = hn::Set(d, by);
  for (int64_t i = 0; i < n; i += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, x + i)), d, x + i);
}

template <bool exact>
HWY_INLINE void softmax_row(const SoftmaxBlock& b, int64_t r, int32_t low, int32_t high) {
  const F d;
  float* s = b.scores + r * block_keys;
  float* sums = b.sums + r * sum_lanes;
  const bool whole = low <= 0 && high >= block_keys;
  const float most = whole ? row_maximum<true>(s, low, high) : row_maximum<false>(s, low, high);
  const float before = b.maximum[r];
  const float maximum = std::max(before, b.factor * most);
  if (maximum != before) {
    const float shrink = std::exp2(before - maximum);
    b.maximum[r] = maximum;
    scale_row(b.output + r * b.output_columns, b.output_columns, shrink);
    scale_row(sums, sum_lanes, shrink);
  }
  const Vec sum = whole ? row_weights<true, exact>(s, low, high, b.factor, maximum)
                        : row_weights<false, exact>(s, low, high, b.factor, maximum);
  hn::StoreU(hn::Add(sum, hn::LoadU(d, sums)), d, sums);
}

HWY_INLINE void key_pairs(const float* s, float* pairs) {
  const F d;
  for (int64_t w = 0; w < block_keys / 2; w += lanes) {
    const Vec first = hn::LoadU(d, s + first_of_pair(w));
    hn::StoreU(pair_up(first, hn::LoadU(d, s + second_of_pair(w))), d, pairs + w);
  }
}

void softmax(const SoftmaxBlock& b) {
  for (int64_t r = 0; r < b.visible.rows; ++r) {
    const int32_t low = b.visible.low[r], high = b.visible.high[r];
    float* s = b.scores + r * block_keys;
    if (low >= high) {
      std::fill_n(s, block_keys, 0.0f);
    } else if (b.pairs != nullptr) {
      softmax_row<false>(b, r, low, high);
    } else {
      softmax_row<true>(b, r, low, high);
    }
    if (b.pairs != nullptr) key_pairs(s, b.pairs + r * block_keys / 2);
  }
}

struct Gradient {
  Vec p, ds;
};
template <bool exact>
HWY_INLINE Gradient gradient(const GradientBlock& b, int64_t r, int64_t j) {
  const F d;
  if (r >= b.visible.rows) return {hn::Zero(d), hn::Zero(d)};
  const int32_t low = b.visible.low[r], high = b.visible.high[r];
  if (j + lanes <= low || j >= high) return {hn::Zero(d), hn::Zero(d)};
  const int64_t at = r * block_keys + j;
  const Vec log_sum = hn::Set(d, b.log_sum[r]);
  Vec p = exp2<exact>(hn::MulSub(hn::Set(d, b.factor), hn::LoadU(d, b.scores + at), log_sum));
  Vec ds = hn::Mul(p, hn::Sub(hn::LoadU(d, b.d_weights + at), hn::Set(d, b.delta[r])));
  if (low > j || high < j + lanes) {
    p = hn::IfThenElseZero(inside(j, low, high), p);
    ds = hn::IfThenElseZero(inside(j, low, high), ds);
  }
  return {p, ds};
}

void gradient_words(const GradientBlock& b) {
  const F d;
  for (int64_t r = 0; r < b.visible.rows; ++r) {
    for (int64_t j = 0; j < block_keys; j += lanes) {
      const Gradient g = gradient<true>(b, r, j);
      hn::StoreU(g.p, d, b.scores + r * block_keys + j);
      hn::StoreU(g.ds, d, b.d_weights + r * block_keys + j);
    }
  }
}

// Rows r, r + 1 and columns j.. and j + 16..: the smallest piece that makes whole pairs both ways.
HWY_INLINE void gradient_square(const GradientBlock& b, int64_t r, int64_t j) {
  const F d;
  const Gradient g00 = gradient<false>(b, r, j), g01 = gradient<false>(b, r, j + 16);
  const Gradient g10 = gradient<false>(b, r + 1, j), g11 = gradient<false>(b, r + 1, j + 16);
  const int64_t at = r / 2 * block_keys + j;
  hn::StoreU(pair_up(g00.p, g10.p), d, b.p_row_pairs + at);
  hn::StoreU(pair_up(g01.p, g11.p), d, b.p_row_pairs + at + 16);
  hn::StoreU(pair_up(g00.ds, g10.ds), d, b.ds_row_pairs + at);
  hn::StoreU(pair_up(g01.ds, g11.ds), d, b.ds_row_pairs + at + 16);
  const int64_t word = j / 32 * 16 + j % 16;
  hn::StoreU(pair_up(g00.ds, g01.ds), d, b.ds_key_pairs + r * block_keys / 2 + word);
  if (r + 1 < b.visible.rows) {
    hn::StoreU(pair_up(g10.ds, g11.ds), d, b.ds_key_pairs + (r + 1) * block_keys / 2 + word);
  }
}

void gradients(const GradientBlock& b) {
  if (b.ds_key_pairs == nullptr) return gradient_words(b);
  for (int64_t r = 0; r < b.visible.rows; r += 2) {
    for (int64_t group = 0; group < block_keys; group += 32) {
      for (int64_t j = group; j < group + 16; j += lanes) gradient_square(b, r, j);
    }
  }
}

void dots(const float* x, const float* y, int64_t rows, int64_t columns, float* out) {
  const F d;
  for (int64_t r = 0; r < rows; ++r, x += columns, y += columns) {
    Vec sum = hn::Zero(d);
    for (int64_t i = 0; i < columns; i += lanes) {
      sum = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum);
    }
    out[r] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention {

HWY_EXPORT(softmax);
HWY_EXPORT(gradients);
HWY_EXPORT(dots);

void softmax_block(const SoftmaxBlock& block) { HWY_DYNAMIC_DISPATCH(softmax)(block); }
void gradient_block(const GradientBlock& block) { HWY_DYNAMIC_DISPATCH(gradients)(block); }
void row_dots(const float* x, const float* y, int64_t rows, int64_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(dots)(x, y, rows, columns, out);
}

}  // namespace shoestring::attention
#endif
