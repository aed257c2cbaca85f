#include "core/panel_kernels.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/panel_kernels.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using V32 = hn::Vec<F32>;
// Packing works on four units at a time on every processor: it is bound by loads and stores.
using U4 = hn::FixedTag<uint32_t, 4>;
using VU4 = hn::Vec<U4>;

// The three kinds of unit. `from` points at the unit's first element; `next` at its second one
// (along k) or is null where K is odd.
struct PlainUnit {
  using Element = float;
  static constexpr int64_t k = 1;
  static uint32_t one(const Element* from, const Element*) {
    uint32_t u;
    std::memcpy(&u, from, sizeof u);
    return u;
  }
  // Four units of one lane, neighbours along k; four lanes of one unit, neighbours in memory.
  static VU4 along_k(const Element* from) {
    return hn::LoadU(U4(), reinterpret_cast<const uint32_t*>(from));
  }
  static VU4 across(const Element* from, const Element*) { return along_k(from); }
};

struct WidenedUnit {
  using Element = uint16_t;
  static constexpr int64_t k = 1;
  static uint32_t one(const Element* from, const Element*) { return uint32_t{*from} << 16; }
  static VU4 along_k(const Element* from) {
    return hn::ShiftLeft<16>(hn::PromoteTo(U4(), hn::LoadU(hn::FixedTag<uint16_t, 4>(), from)));
  }
  static VU4 across(const Element* from, const Element*) { return along_k(from); }
};

struct PairUnit {
  using Element = uint16_t;
  static constexpr int64_t k = 2;
  static uint32_t one(const Element* from, const Element* next) {
    return next == nullptr ? *from : (uint32_t{*next} << 16 | *from);
  }
  static VU4 along_k(const Element* from) {
    return hn::LoadU(U4(), reinterpret_cast<const uint32_t*>(from));
  }
  static VU4 across(const Element* from, const Element* next) {
    const hn::FixedTag<uint16_t, 4> d16;
    const VU4 low = hn::PromoteTo(U4(), hn::LoadU(d16, from));
    if (next == nullptr) return low;
    return hn::Or(low, hn::ShiftLeft<16>(hn::PromoteTo(U4(), hn::LoadU(d16, next))));
  }
};

// Rows of the strip run along k: four lanes by four units are transposed in registers. The last
// group of lanes comes first: what it writes past its lanes is overwritten by the first group.
template <class Unit>
void pack_along_k(const Strip& strip, int64_t width, uint32_t* to) {
  using Element = typename Unit::Element;
  const U4 d;
  const hn::RepartitionToWide<U4> wide;
  const auto* data = reinterpret_cast<const Element*>(strip.data);
  const int64_t units = (strip.depth + Unit::k - 1) / Unit::k;
  const int64_t whole = strip.depth / Unit::k / 4 * 4;
  for (int64_t lane = (width - 1) / 4 * 4; lane >= 0; lane -= 4) {
    const Element* row[4];  // lanes that do not exist repeat the last one: nobody reads their sums
    for (int64_t i = 0; i < 4; ++i) {
      row[i] = data + std::min(lane + i, strip.lanes - 1) * strip.lane_step;
    }
    for (int64_t u = 0; u < whole; u += 4) {
      const VU4 r0 = Unit::along_k(row[0] + u * Unit::k), r1 = Unit::along_k(row[1] + u * Unit::k);
      const VU4 r2 = Unit::along_k(row[2] + u * Unit::k), r3 = Unit::along_k(row[3] + u * Unit::k);
      const auto low01 = hn::BitCast(wide, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(wide, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(wide, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(wide, hn::InterleaveUpper(d, r2, r3));
      uint32_t* out = to + u * width + lane;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, low01, low23)), d, out);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, low01, low23)), d, out + width);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, high01, high23)), d, out + 2 * width);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, high01, high23)), d, out + 3 * width);
    }
    for (int64_t u = whole; u < units; ++u) {
      for (int64_t i = 0; i < std::min<int64_t>(4, width - lane); ++i) {
        const Element* from = row[i] + u * Unit::k;
        const bool pair = u * Unit::k + 1 < strip.depth;
        to[u * width + lane + i] = Unit::one(from, pair ? from + 1 : nullptr);
      }
    }
  }
}

// Lanes are neighbours in memory: copies, four at a time, and never reads past the last lane.
template <class Unit>
void pack_across(const Strip& strip, int64_t width, uint32_t* to) {
  using Element = typename Unit::Element;
  const auto* from = reinterpret_cast<const Element*>(strip.data);
  const int64_t lanes = std::min(strip.lanes, width);
  for (int64_t k = 0; k < strip.depth; k += Unit::k, to += width) {
    const Element* row = from + k * strip.k_step;
    const Element* next = k + 1 < strip.depth ? row + strip.k_step : nullptr;
    if (strip.prefetch_k > 0) {
      for (int64_t i = 0; i < Unit::k; ++i)
        hwy::Prefetch(row + (strip.prefetch_k + i) * strip.k_step);
    }
    int64_t lane = 0;
    if constexpr (Unit::k == 2) {  // two rows of eight, zipped
      const hn::FixedTag<uint16_t, 8> d16;
      for (; next != nullptr && lane + 8 <= lanes; lane += 8) {
        const auto first = hn::LoadU(d16, row + lane), second = hn::LoadU(d16, next + lane);
        const U4 d;
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d16, first, second)), d, to + lane);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d16, first, second)), d, to + lane + 4);
      }
    }
    for (; lane + 4 <= lanes; lane += 4) {
      hn::StoreU(Unit::across(row + lane, next == nullptr ? next : next + lane), U4(), to + lane);
    }
    for (; lane < lanes; ++lane) {
      to[lane] = Unit::one(row + lane, next == nullptr ? next : next + lane);
    }
    for (; lane < width; ++lane) to[lane] = 0;
  }
}

template <class Unit>
void pack_strip(const Strip& strip, int64_t width, float* to) {
  auto* units = reinterpret_cast<uint32_t*>(to);
  if (strip.k_step == 1) {
    pack_along_k<Unit>(strip, width, units);
  } else {
    pack_across<Unit>(strip, width, units);
  }
}
void pack_plain(const Strip& s, int64_t width, float* to) { pack_strip<PlainUnit>(s, width, to); }
void pack_widened(const Strip& s, int64_t w, float* to) { pack_strip<WidenedUnit>(s, w, to); }
void pack_pairs(const Strip& s, int64_t width, float* to) { pack_strip<PairUnit>(s, width, to); }

// rows x 2 vectors of sums stay in registers; two more hold B, one the broadcast of A.
template <int rows, bool scaled>
void multiply_panel(const PanelPair& p) {
  const F32 d;
  const auto half = static_cast<int64_t>(hn::Lanes(d)), width = 2 * half;
  V32 sums[rows][2];
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = hn::Zero(d);
  const float* a = p.a;
  const float* b = p.b;
  for (int64_t u = 0; u < p.units; ++u, a += rows, b += width) {
    const V32 b0 = hn::LoadU(d, b), b1 = hn::LoadU(d, b + half);
    hwy::Prefetch(b + 8 * width);
    hwy::Prefetch(b + 8 * width + half);
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
      const V32 x = hn::Set(d, a[i]);
      sums[i][0] = hn::MulAdd(x, b0, sums[i][0]);
      sums[i][1] = hn::MulAdd(x, b1, sums[i][1]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) {
    float* c = p.c + i * p.stride;
    if constexpr (scaled) {
      const V32 row = hn::Set(d, p.row_scales[i]);
      const V32 s0 = hn::LoadU(d, p.column_scales), s1 = hn::LoadU(d, p.column_scales + half);
      sums[i][0] = hn::Mul(sums[i][0], hn::Mul(row, s0));
      sums[i][1] = hn::Mul(sums[i][1], hn::Mul(row, s1));
    }
    if (p.add) {
      sums[i][0] = hn::Add(hn::LoadU(d, c), sums[i][0]);
      sums[i][1] = hn::Add(hn::LoadU(d, c + half), sums[i][1]);
    }
    hn::StoreU(sums[i][0], d, c);
    hn::StoreU(sums[i][1], d, c + half);
  }
}

void finish_f32(const Finish& f) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V32 alpha = hn::Set(d, f.alpha);
  for (int64_t i = 0; i < f.rows; ++i) {
    const float* sums = f.sums + i * f.sums_stride;
    float* out = reinterpret_cast<float*>(f.out) + i * f.out_stride;
    int64_t j = 0;
    for (; j + lanes <= f.columns; j += lanes) {
      const V32 product = hn::Mul(alpha, hn::LoadU(d, sums + j));
      hn::StoreU(f.accumulate ? hn::Add(hn::LoadU(d, out + j), product) : product, d, out + j);
    }
    for (; j < f.columns; ++j) {
      const float product = f.alpha * sums[j];
      out[j] = f.accumulate ? out[j] + product : product;
    }
  }
}

void finish_bf16(const Finish& f) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<uint16_t, F32> d16;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < f.rows; ++i) {
    const float* sums = f.sums + i * f.sums_stride;
    auto* out = reinterpret_cast<BFloat16*>(f.out) + i * f.out_stride;
    int64_t j = 0;
    for (; j + lanes <= f.columns; j += lanes) {
      const V32 product = hn::Mul(hn::Set(d, f.alpha), hn::LoadU(d, sums + j));
      const auto bits = hn::BitCast(du, product);
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
      const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
      const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
      const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(product)), quiet, rounded);
      const auto high = hn::BitCast(di, hn::ShiftRight<16>(chosen));
      hn::StoreU(hn::DemoteTo(d16, high), d16, reinterpret_cast<uint16_t*>(out + j));
    }
    for (; j < f.columns; ++j) out[j] = BFloat16(f.alpha * sums[j]);
  }
}

void finish(const Finish& f) { f.dtype == Dtype::bf16 ? finish_bf16(f) : finish_f32(f); }

// Sixteen registers hold 6 x 2 sums, thirty-two 14 x 2.
constexpr int rows_here = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL ? 14 : 6;

template <int... i>
void fill_table(PanelKernels& kernels, std::integer_sequence<int, i...>) {
  ((kernels.multiply[i + 1] = multiply_panel<i + 1, false>), ...);
  ((kernels.multiply_scaled[i + 1] = multiply_panel<i + 1, true>), ...);
}

PanelKernels make_kernels(Dtype operand, bool pairs) {
  PanelKernels kernels{};
  kernels.rows = rows_here;
  kernels.columns = 2 * static_cast<int64_t>(hn::Lanes(F32()));
  kernels.k_per_unit = 1;
  kernels.pack = operand == Dtype::f32 ? pack_plain : pairs ? pack_pairs : pack_widened;
  kernels.finish = finish;
  fill_table(kernels, std::make_integer_sequence<int, rows_here>());
  return kernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {
HWY_EXPORT(make_kernels);
}

PanelKernels panel_kernels(Dtype operand) {
  const bool pairs = operand == Dtype::bf16 && has_bf16_products();
  PanelKernels kernels = HWY_DYNAMIC_DISPATCH(make_kernels)(operand, pairs);
  if (pairs) use_bf16_pairs(kernels);
  return kernels;
}

}  // namespace shoestring
#endif  // HWY_ONCE
