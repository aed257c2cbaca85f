// Vector conversions between f32 lanes and the small formats (core/fp8/small_float.h), bit for bit
// those of encode() and decode(). Included once per instruction set after
// core/ops/vector_math-inl.h.

#if defined(SHOESTRING_CORE_FP8_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_CORE_FP8_CODES_INL_H_
#undef SHOESTRING_CORE_FP8_CODES_INL_H_
#else
#define SHOESTRING_CORE_FP8_CODES_INL_H_
#endif

#include <cstring>

#include "core/fp8/small_float.h"
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {

using U8 = hn::Rebind<uint8_t, F32>;
using Bits = hn::Vec<U32>;

struct E4M3 {
  static constexpr SmallFloat facts = e4m3_facts;
};
struct E5M2 {
  static constexpr SmallFloat facts = e5m2_facts;
};
struct E5M6 {
  static constexpr SmallFloat facts = e5m6_facts;
};

constexpr float power_of_two(int exponent) {
  float x = 1;
  for (; exponent > 0; --exponent) x *= 2;
  for (; exponent < 0; ++exponent) x /= 2;
  return x;
}

// Codes in the low bits of 32. Normal numbers are rounded on their bits, subnormal ones by adding a
// number whose last place is the format's smallest.
template <class Format>
HWY_INLINE Bits encode_lanes(Floats x) {
  constexpr SmallFloat f = Format::facts;
  constexpr int shift = 23 - f.mantissa_bits;
  constexpr uint32_t half = (1u << (shift - 1)) - 1;
  constexpr uint32_t offset = static_cast<uint32_t>(127 - f.bias) << f.mantissa_bits;
  const Floats magic = set(power_of_two(24 - f.bias - f.mantissa_bits));
  const Floats a = hn::Min(hn::Abs(x), set(f.largest));
  const Bits u = hn::BitCast(U32(), a);
  const Bits odd = hn::And(hn::ShiftRight<shift>(u), hn::Set(U32(), 1));
  const Bits rounded = hn::Add(u, hn::Add(odd, hn::Set(U32(), half)));
  const Bits normal = hn::Sub(hn::ShiftRight<shift>(rounded), hn::Set(U32(), offset));
  const Bits tiny = hn::Sub(hn::BitCast(U32(), hn::Add(a, magic)), hn::BitCast(U32(), magic));
  const auto is_tiny = hn::RebindMask(U32(), hn::Lt(a, set(power_of_two(1 - f.bias))));
  Bits code = hn::IfThenElse(is_tiny, tiny, normal);
  code = hn::IfThenElse(hn::RebindMask(U32(), hn::IsNaN(x)), hn::Set(U32(), f.nan), code);
  const Bits sign = hn::ShiftRight<31>(hn::BitCast(U32(), x));
  return hn::Or(code, hn::ShiftLeft<(f.mantissa_bits == 6 ? 11 : 7)>(sign));
}

template <class Format>
HWY_INLINE Floats decode_lanes(Bits code) {
  constexpr SmallFloat f = Format::facts;
  constexpr int sign_bit = f.mantissa_bits == 6 ? 11 : 7;
  const Bits magnitude = hn::And(code, hn::Set(U32(), (1u << sign_bit) - 1));
  const Bits sign = hn::ShiftLeft<31>(hn::ShiftRight<sign_bit>(code));
  const Bits bits = hn::Add(hn::ShiftLeft<23 - f.mantissa_bits>(magnitude),
                            hn::Set(U32(), static_cast<uint32_t>(127 - f.bias) << 23));
  const Floats tiny = hn::Mul(hn::ConvertTo(F32(), hn::BitCast(I32(), magnitude)),
                              set(power_of_two(1 - f.bias - f.mantissa_bits)));
  const auto is_tiny = hn::Lt(hn::BitCast(I32(), magnitude), hn::Set(I32(), 1 << f.mantissa_bits));
  Floats value = hn::IfThenElse(hn::RebindMask(F32(), is_tiny), tiny, hn::BitCast(F32(), bits));
  const auto special =
      hn::Gt(hn::BitCast(I32(), magnitude), hn::Set(I32(), static_cast<int32_t>(f.infinity) - 1));
  if constexpr (f.infinity == f.nan) {
    const Floats nan = hn::BitCast(F32(), hn::Set(U32(), 0x7fc00000u));
    value = hn::IfThenElse(hn::RebindMask(F32(), special), nan, value);
  } else {  // the exponent field of f32 is all ones too
    const Bits high = hn::Or(bits, hn::Set(U32(), 0x7f800000u));
    value = hn::IfThenElse(hn::RebindMask(F32(), special), hn::BitCast(F32(), high), value);
  }
  return hn::BitCast(F32(), hn::Or(hn::BitCast(U32(), value), sign));
}

HWY_INLINE Bits load_codes(const uint8_t* from, AllLanes) {
  return hn::PromoteTo(U32(), hn::LoadU(U8(), from));
}
HWY_INLINE Bits load_codes(const uint8_t* from, FirstLanes lanes) {
  alignas(64) uint8_t whole[hn::MaxLanes(F32())] = {};
  std::memcpy(whole, from, static_cast<size_t>(lanes.count));
  return load_codes(whole, AllLanes{});
}
HWY_INLINE void store_codes(Bits codes, uint8_t* to, AllLanes) {
  hn::StoreU(hn::TruncateTo(U8(), codes), U8(), to);
}
HWY_INLINE void store_codes(Bits codes, uint8_t* to, FirstLanes lanes) {
  alignas(64) uint8_t whole[hn::MaxLanes(F32())];
  store_codes(codes, whole, AllLanes{});
  std::memcpy(to, whole, static_cast<size_t>(lanes.count));
}

}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#endif  // per target
