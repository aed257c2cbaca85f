#include "core/ops/attention_pack.h"

#include <algorithm>
#include <cstring>

#include "core/ops/attention_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/attention_pack.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using Halves = hn::Rebind<uint16_t, F>;
constexpr int64_t lanes = hn::MaxLanes(F());

HWY_INLINE const uint16_t* bits_of(const BFloat16* x) {
  return reinterpret_cast<const uint16_t*>(x);
}

HWY_INLINE hn::Vec<F> load(const float* x) { return hn::LoadU(F(), x); }
HWY_INLINE hn::Vec<F> load(const BFloat16* x) {
  const auto wide = hn::PromoteTo(U(), hn::LoadU(Halves(), bits_of(x)));
  return hn::BitCast(F(), hn::ShiftLeft<16>(wide));
}

void widen(const Rows<const BFloat16>& from, float* to, int64_t to_stride) {
  const F d;
  for (int64_t r = 0; r < from.rows; ++r, to += to_stride) {
    const BFloat16* x = from.data + r * from.stride;
    int64_t i = 0;
    for (; i + lanes <= from.columns; i += lanes) {
      hn::StoreU(load(x + i), d, to + i);
    }
    for (; i < from.columns; ++i) to[i] = static_cast<float>(x[i]);
    std::fill(to + from.columns, to + to_stride, 0.0f);
  }
}

// One row of words from two rows of halves; `second` may be null for zeros.
HWY_INLINE void pair_rows(const BFloat16* first, const BFloat16* second, int64_t columns,
                          float* to) {
  const U du;
  const Halves dh;
  auto* words = reinterpret_cast<uint32_t*>(to);
  int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) {
    auto word = hn::PromoteTo(du, hn::LoadU(dh, bits_of(first) + i));
    if (second != nullptr) {
      const auto high = hn::PromoteTo(du, hn::LoadU(dh, bits_of(second) + i));
      word = hn::Or(word, hn::ShiftLeft<16>(high));
    }
    hn::StoreU(word, du, words + i);
  }
  for (; i < columns; ++i) {
    const uint32_t high = second != nullptr ? second[i].bits : 0;
    const uint32_t word = first[i].bits | high << 16;
    std::memcpy(to + i, &word, sizeof(word));
  }
}

void row_pairs(const Rows<const BFloat16>& from, bool by_key, int64_t words, float* to,
               int64_t to_stride) {
  for (int64_t w = 0; w < words; ++w, to += to_stride) {
    const int64_t first = by_key ? first_of_pair(w) : 2 * w;
    const int64_t second = by_key ? second_of_pair(w) : 2 * w + 1;
    if (first >= from.rows) {
      std::fill_n(to, to_stride, 0.0f);
      continue;
    }
    pair_rows(from.data + first * from.stride,
              second < from.rows ? from.data + second * from.stride : nullptr, from.columns, to);
    std::fill(to + from.columns, to + to_stride, 0.0f);
  }
}

void transpose_words(const Transpose& t) {
  const hn::CappedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> wide;
  const auto load = [&](const float* x) HWY_ATTR { return hn::LoadU(d, x); };
  for (int64_t i = 0; i < t.columns; i += 4) {
    for (int64_t r = 0; r < t.rows; r += 4) {
      const float* from = t.from + r * t.from_stride + i;
      float* to = t.to + i * t.to_stride + r;
      const auto a = load(from), b = load(from + t.from_stride);
      const auto c = load(from + 2 * t.from_stride), e = load(from + 3 * t.from_stride);
      const auto ab0 = hn::BitCast(wide, hn::InterleaveLower(d, a, b));
      const auto ab1 = hn::BitCast(wide, hn::InterleaveUpper(d, a, b));
      const auto ce0 = hn::BitCast(wide, hn::InterleaveLower(d, c, e));
      const auto ce1 = hn::BitCast(wide, hn::InterleaveUpper(d, c, e));
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, ab0, ce0)), d, to);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, ab0, ce0)), d, to + t.to_stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, ab1, ce1)), d, to + 2 * t.to_stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, ab1, ce1)), d, to + 3 * t.to_stride);
    }
  }
}

HWY_INLINE void store(hn::Vec<F> x, float* to) { hn::StoreU(x, F(), to); }
// To nearest even; NaN stays NaN.
HWY_INLINE void store(hn::Vec<F> x, BFloat16* to) {
  const U du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  hn::StoreU(hn::TruncateTo(Halves(), hn::ShiftRight<16>(chosen)), Halves(),
             reinterpret_cast<uint16_t*>(to));
}

template <class Element>
void scale_rows(const float* from, int64_t from_stride, const float* factor,
                const Rows<Element>& to) {
  const F d;
  for (int64_t r = 0; r < to.rows; ++r, from += from_stride) {
    Element* y = to.data + r * to.stride;
    const auto f = hn::Set(d, factor[r]);
    int64_t i = 0;
    for (; i + lanes <= to.columns; i += lanes) {
      store(hn::Mul(f, hn::LoadU(d, from + i)), y + i);
    }
    for (; i < to.columns; ++i) y[i] = Element(factor[r] * from[i]);
  }
}
void unpack_f32(const float* from, int64_t stride, const float* factor, const Rows<float>& to) {
  scale_rows(from, stride, factor, to);
}
void unpack_bf16(const float* from, int64_t stride, const float* factor, const Rows<BFloat16>& to) {
  scale_rows(from, stride, factor, to);
}

template <class Element>
void dots(const Rows<const Element>& x, const Rows<const Element>& y, float* to) {
  const F d;
  for (int64_t r = 0; r < x.rows; ++r) {
    const Element* a = x.data + r * x.stride;
    const Element* b = y.data + r * y.stride;
    auto sums = hn::Zero(d);
    int64_t i = 0;
    for (; i + lanes <= x.columns; i += lanes) sums = hn::MulAdd(load(a + i), load(b + i), sums);
    float sum = hn::GetLane(hn::SumOfLanes(d, sums));
    for (; i < x.columns; ++i) sum += static_cast<float>(a[i]) * static_cast<float>(b[i]);
    to[r] = sum;
  }
}
void dots_f32(const Rows<const float>& x, const Rows<const float>& y, float* to) { dots(x, y, to); }
void dots_bf16(const Rows<const BFloat16>& x, const Rows<const BFloat16>& y, float* to) {
  dots(x, y, to);
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention {

HWY_EXPORT(widen);
HWY_EXPORT(row_pairs);
HWY_EXPORT(transpose_words);
HWY_EXPORT(unpack_f32);
HWY_EXPORT(unpack_bf16);
HWY_EXPORT(dots_f32);
HWY_EXPORT(dots_bf16);

void pack_f32(const Rows<const float>& from, float* to, int64_t to_stride) {
  for (int64_t r = 0; r < from.rows; ++r, to += to_stride) {
    std::copy_n(from.data + r * from.stride, from.columns, to);
    std::fill(to + from.columns, to + to_stride, 0.0f);
  }
}

void pack_f32(const Rows<const BFloat16>& from, float* to, int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(widen)(from, to, to_stride);
}

void pack_column_pairs(const Rows<const BFloat16>& from, float* to, int64_t to_stride) {
  const size_t bytes = static_cast<size_t>(from.columns) * sizeof(BFloat16);
  const size_t row_bytes = static_cast<size_t>(to_stride) * sizeof(float);
  for (int64_t r = 0; r < from.rows; ++r, to += to_stride) {
    auto* row = reinterpret_cast<std::byte*>(to);
    std::memcpy(row, from.data + r * from.stride, bytes);
    std::memset(row + bytes, 0, row_bytes - bytes);
  }
}

void pack_row_pairs(const Rows<const BFloat16>& from, bool by_key, int64_t words, float* to,
                    int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(row_pairs)(from, by_key, words, to, to_stride);
}

void transpose(const Transpose& t) { HWY_DYNAMIC_DISPATCH(transpose_words)(t); }

void unpack(const float* from, int64_t from_stride, const float* factor, const Rows<float>& to) {
  HWY_DYNAMIC_DISPATCH(unpack_f32)(from, from_stride, factor, to);
}
void unpack(const float* from, int64_t from_stride, const float* factor, const Rows<BFloat16>& to) {
  HWY_DYNAMIC_DISPATCH(unpack_bf16)(from, from_stride, factor, to);
}

void row_dots(const Rows<const float>& x, const Rows<const float>& y, float* to) {
  HWY_DYNAMIC_DISPATCH(dots_f32)(x, y, to);
}
void row_dots(const Rows<const BFloat16>& x, const Rows<const BFloat16>& y, float* to) {
  HWY_DYNAMIC_DISPATCH(dots_bf16)(x, y, to);
}

}  // namespace shoestring::attention
#endif
