// Vector pieces that kernels share: rows of f32 or bf16 read and written as f32 lanes, sums, the
// exponential. Included once per instruction set, between foreach_target.h and the kernels:
//
//   for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
//     store(exp(load(x + i, lanes)), y + i, lanes);
//   });

#if defined(SHOESTRING_CORE_OPS_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_CORE_OPS_VECTOR_MATH_INL_H_
#undef SHOESTRING_CORE_OPS_VECTOR_MATH_INL_H_
#else
#define SHOESTRING_CORE_OPS_VECTOR_MATH_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using Floats = hn::Vec<F32>;
using FloatMask = hn::Mask<F32>;

// Which lanes of a vector take part: all, or the first `count` at the end of a row. The second kind
// reads zeros beyond the row and never touches memory there.
struct AllLanes {};
struct FirstLanes {
  int64_t count;
};

HWY_INLINE int64_t lane_count() { return static_cast<int64_t>(hn::Lanes(F32())); }

// Calls f(i, lanes) for the vectors that cover [0, n).
template <class F>
HWY_INLINE void for_lanes(int64_t n, F&& f) {
  const int64_t step = lane_count();
  int64_t i = 0;
  for (; i + step <= n; i += step) f(i, AllLanes{});
  if (i < n) f(i, FirstLanes{n - i});
}

HWY_INLINE Floats set(float x) { return hn::Set(F32(), x); }

HWY_INLINE Floats load(const float* from, AllLanes) { return hn::LoadU(F32(), from); }
HWY_INLINE Floats load(const BFloat16* from, AllLanes) {
  const auto bits = hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), bits)));
}
template <class T>
HWY_INLINE Floats load(const T* from, FirstLanes lanes) {
  alignas(64) T whole[hn::MaxLanes(F32())] = {};
  std::memcpy(whole, from, static_cast<size_t>(lanes.count) * sizeof(T));
  return load(whole, AllLanes{});
}

// The nearest bf16 (ties to even) of each lane, in the upper half of 32 bits; NaN stays NaN.
HWY_INLINE hn::Vec<U32> bf16_bits(Floats x) {
  const auto bits = hn::BitCast(U32(), x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(U32(), 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(U32(), 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(U32(), 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(U32(), hn::IsNaN(x)), quiet, rounded);
  return hn::And(chosen, hn::Set(U32(), 0xffff0000u));
}

HWY_INLINE void store(Floats x, float* to, AllLanes) { hn::StoreU(x, F32(), to); }
HWY_INLINE void store(Floats x, BFloat16* to, AllLanes) {
  const auto halves = hn::TruncateTo(U16(), hn::ShiftRight<16>(bf16_bits(x)));
  hn::StoreU(halves, U16(), reinterpret_cast<uint16_t*>(to));
}
template <class T>
HWY_INLINE void store(Floats x, T* to, FirstLanes lanes) {
  alignas(64) T whole[hn::MaxLanes(F32())];
  store(x, whole, AllLanes{});
  std::memcpy(to, whole, static_cast<size_t>(lanes.count) * sizeof(T));
}

// What a store as T and a load would give.
template <class T>
HWY_INLINE Floats round_as(Floats x) {
  if constexpr (std::is_same_v<T, BFloat16>) return hn::BitCast(F32(), bf16_bits(x));
  return x;
}

HWY_INLINE float sum(Floats x) { return hn::GetLane(hn::SumOfLanes(F32(), x)); }
HWY_INLINE float maximum(Floats x) { return hn::GetLane(hn::MaxOfLanes(F32(), x)); }

// e^x to 2 ulp for x in [-87.3, 88.3]; exactly 0 below (masked scores are -infinity), 2.4e38 above,
// NaN for NaN. x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q of degree 4 fitted
// here for least relative error (3e-9); n is added to the exponent's bits.
HWY_INLINE Floats exp(Floats x) {
  const Floats lowest = set(-87.33654f), magic = set(12582912.0f);  // 1.5 * 2^23: rounds to integer
  const Floats inside = hn::Max(lowest, hn::Min(set(88.37f), x));
  const Floats shifted = hn::MulAdd(inside, set(1.44269504f), magic);
  const Floats n = hn::Sub(shifted, magic);
  Floats r = hn::NegMulAdd(n, set(0.693359375f), inside);
  r = hn::NegMulAdd(n, set(-2.12194440e-4f), r);
  Floats q = hn::MulAdd(set(0x1.6a23d0p-10f), r, set(0x1.123a20p-7f));
  q = hn::MulAdd(q, r, set(0x1.5558f2p-5f));
  q = hn::MulAdd(q, r, set(0x1.555492p-3f));
  q = hn::MulAdd(q, r, set(0x1.fffffcp-2f));
  const Floats p = hn::MulAdd(hn::Mul(r, r), q, hn::Add(r, set(1.0f)));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(I32(), shifted));
  const Floats result = hn::BitCast(F32(), hn::Add(hn::BitCast(I32(), p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::IfThenElse(hn::IsNaN(x), x, result));
}

// 1 / (1 + e^-x)
HWY_INLINE Floats sigmoid(Floats x) {
  return hn::Div(set(1.0f), hn::Add(set(1.0f), exp(hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#endif  // per target
