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

// 2^x for x < 128: x = n + r with |r| <= 1/2, a polynomial in r fitted here for least relative
// error (exact: 1.9e-9; else 2.6e-6, far below bf16's 2e-3), times 2^n. 0 below -126.5; NaN stays
// NaN.
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

// By how much, in powers of two, scores may exceed the reference that is subtracted from them.
constexpr float most_growth = 8;

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

// The largest score of each lane; at least one lane holds the row's.
template <bool whole>
HWY_INLINE Vec lane_maxima(const float* s, int32_t low, int32_t high) {
  const F d;
  Vec most = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < block_keys; j += lanes) {
    most = hn::Max(most, whole ? hn::LoadU(d, s + j) : visible_scores(s, j, low, high));
  }
  return most;
}

template <bool whole, bool exact>
HWY_INLINE Vec weights_at(const SoftmaxBlock& b, int64_t r, int64_t j) {
  const F d;
  const int32_t low = b.visible.low[r], high = b.visible.high[r];
  const Vec scores = hn::LoadU(d, b.scores + r * block_keys + j);
  const Vec p = exp2<exact>(hn::MulSub(hn::Set(d, b.factor), scores, hn::Set(d, b.maximum[r])));
  return whole ? p : hn::IfThenElseZero(inside(j, low, high), p);
}

// Scores of row r to weights, or pairs of them; returns their sums by lane.
template <bool whole, bool pairs>
HWY_INLINE Vec row_weights(const SoftmaxBlock& b, int64_t r) {
  const F d;
  Vec sum = hn::Zero(d);
  for (int64_t group = 0; group < block_keys; group += 32) {
    for (int64_t j = group; j < group + 16; j += lanes) {
      const Vec first = weights_at<whole, !pairs>(b, r, j);
      const Vec second = weights_at<whole, !pairs>(b, r, j + 16);
      sum = hn::Add(sum, hn::Add(first, second));
      if constexpr (pairs) {
        const int64_t word = group / 2 + j - group;
        hn::StoreU(pair_up(first, second), d, b.pairs + r * block_keys / 2 + word);
      } else {
        hn::StoreU(first, d, b.scores + r * block_keys + j);
        hn::StoreU(second, d, b.scores + r * block_keys + j + 16);
      }
    }
  }
  return sum;
}

HWY_INLINE void scale_row(float* x, int64_t n, float by) {
  const F d;
  const Vec f = hn::Set(d, by);
  for (int64_t i = 0; i < n; i += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, x + i)), d, x + i);
}

// Moves row r's reference to its maximum so far and scales down what was summed before. Rare: a
// reference serves until a weight would exceed 2^most_growth.
HWY_NOINLINE void raise_maximum(const SoftmaxBlock& b, int64_t r, Vec most) {
  const float before = b.maximum[r];
  b.maximum[r] = std::max(before, b.factor * hn::GetLane(hn::MaxOfLanes(F(), most)));
  if (before == -std::numeric_limits<float>::infinity()) return;  // nothing was summed
  const float shrink = std::exp2(before - b.maximum[r]);
  scale_row(b.output + r * b.output_columns, b.output_columns, shrink);
  scale_row(b.sums + r * sum_lanes, sum_lanes, shrink);
}

template <bool whole, bool pairs>
HWY_INLINE void softmax_row(const SoftmaxBlock& b, int64_t r) {
  const F d;
  const Vec most =
      lane_maxima<whole>(b.scores + r * block_keys, b.visible.low[r], b.visible.high[r]);
  const Vec limit = hn::Set(d, b.maximum[r] + most_growth);
  if (!hn::AllFalse(d, hn::Gt(hn::Mul(most, hn::Set(d, b.factor)), limit))) {
    raise_maximum(b, r, most);
  }
  float* sums = b.sums + r * sum_lanes;
  hn::StoreU(hn::Add(row_weights<whole, pairs>(b, r), hn::LoadU(d, sums)), d, sums);
}

template <bool pairs>
HWY_INLINE void softmax_rows(const SoftmaxBlock& b) {
  for (int64_t r = 0; r < b.visible.rows; ++r) {
    const int32_t low = b.visible.low[r], high = b.visible.high[r];
    if (low >= high) {
      float* to = pairs ? b.pairs + r * block_keys / 2 : b.scores + r * block_keys;
      std::fill_n(to, pairs ? block_keys / 2 : block_keys, 0.0f);
    } else if (low <= 0 && high >= block_keys) {
      softmax_row<true, pairs>(b, r);
    } else {
      softmax_row<false, pairs>(b, r);
    }
  }
}

void softmax(const SoftmaxBlock& b) {
  if (b.pairs != nullptr) {
    softmax_rows<true>(b);
  } else {
    softmax_rows<false>(b);
  }
}

struct Gradient {
  Vec p, ds;
};
template <bool whole, bool exact>
HWY_INLINE Gradient gradient(const GradientBlock& b, int64_t r, int64_t j) {
  const F d;
  const int64_t at = r * block_keys + j;
  const Vec log_sum = hn::Set(d, b.log_sum[r]);
  const Vec p = exp2<exact>(hn::MulSub(hn::Set(d, b.factor), hn::LoadU(d, b.scores + at), log_sum));
  const Vec ds = hn::Mul(p, hn::Sub(hn::LoadU(d, b.d_weights + at), hn::Set(d, b.delta[r])));
  if (whole) return {p, ds};
  const auto mask = inside(j, b.visible.low[r], b.visible.high[r]);
  return {hn::IfThenElseZero(mask, p), hn::IfThenElseZero(mask, ds)};
}

template <bool whole>
HWY_INLINE void gradient_words(const GradientBlock& b) {
  const F d;
  for (int64_t r = 0; r < b.visible.rows; ++r) {
    for (int64_t j = 0; j < block_keys; j += lanes) {
      const Gradient g = gradient<whole, true>(b, r, j);
      hn::StoreU(g.p, d, b.scores + r * block_keys + j);
      hn::StoreU(g.ds, d, b.d_weights + r * block_keys + j);
    }
  }
}

// Rows r, r + 1 and columns j.. and j + 16..: the smallest piece that makes whole pairs both ways.
template <bool whole, bool last>
HWY_INLINE void gradient_square(const GradientBlock& b, int64_t r, int64_t j) {
  const F d;
  const Gradient none = {hn::Zero(d), hn::Zero(d)};
  const auto piece = [&](int64_t row, int64_t column)
                         HWY_ATTR { return gradient<whole, false>(b, row, column); };
  const Gradient g00 = piece(r, j), g01 = piece(r, j + 16);
  const Gradient g10 = last ? none : piece(r + 1, j), g11 = last ? none : piece(r + 1, j + 16);
  const int64_t at = r / 2 * block_keys + j;
  hn::StoreU(pair_up(g00.p, g10.p), d, b.p_row_pairs + at);
  hn::StoreU(pair_up(g01.p, g11.p), d, b.p_row_pairs + at + 16);
  hn::StoreU(pair_up(g00.ds, g10.ds), d, b.ds_row_pairs + at);
  hn::StoreU(pair_up(g01.ds, g11.ds), d, b.ds_row_pairs + at + 16);
  const int64_t word = r * block_keys / 2 + j / 32 * 16 + j % 16;
  hn::StoreU(pair_up(g00.ds, g01.ds), d, b.ds_key_pairs + word);
  if (!last) hn::StoreU(pair_up(g10.ds, g11.ds), d, b.ds_key_pairs + word + block_keys / 2);
}

template <bool whole, bool last>
HWY_INLINE void gradient_pairs(const GradientBlock& b, int64_t r) {
  for (int64_t group = 0; group < block_keys; group += 32) {
    for (int64_t j = group; j < group + 16; j += lanes) gradient_square<whole, last>(b, r, j);
  }
}

template <bool whole>
HWY_INLINE void gradient_rows(const GradientBlock& b) {
  if (b.ds_key_pairs == nullptr) return gradient_words<whole>(b);
  int64_t r = 0;
  for (; r + 2 <= b.visible.rows; r += 2) gradient_pairs<whole, false>(b, r);
  if (r < b.visible.rows) gradient_pairs<whole, true>(b, r);
}

void gradients(const GradientBlock& b) {
  if (b.visible.low[b.visible.rows - 1] <= 0 && b.visible.high[0] >= block_keys) {
    gradient_rows<true>(b);
  } else {
    gradient_rows<false>(b);
  }
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention {

HWY_EXPORT(softmax);
HWY_EXPORT(gradients);

void softmax_block(const SoftmaxBlock& block) { HWY_DYNAMIC_DISPATCH(softmax)(block); }
void gradient_block(const GradientBlock& block) { HWY_DYNAMIC_DISPATCH(gradients)(block); }

}  // namespace shoestring::attention
#endif
