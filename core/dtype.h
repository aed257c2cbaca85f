#pragma once
// Element types of tensors and files, and the two 16- and 8-bit float families in plain C++.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace shoestring {

enum class Dtype : uint8_t {
  f32,
  f64,
  bf16,
  f16,
  f8e4m3,
  f8e5m2,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64
};

size_t size_of(Dtype dtype);                   // bytes
std::string_view name_of(Dtype dtype);         // "bf16"
Dtype dtype_from_name(std::string_view name);  // throws a usage error that lists the names
bool is_float(Dtype dtype);

// bfloat16: the upper half of an f32. Rounds to nearest even; NaN stays NaN (quiet).
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x);
    bits = (u & 0x7fffffffu) > 0x7f800000u
               ? static_cast<uint16_t>((u >> 16) | 0x40u)
               : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// Stochastic rounding: `random` is uniform in 0..65535; up with probability (low half) / 65536.
// NaN and infinity are kept.
inline BFloat16 round_stochastic(float x, uint32_t random) {
  BFloat16 result;
  uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7f800000u) == 0x7f800000u) return BFloat16(x);
  result.bits = static_cast<uint16_t>((u + (random & 0xffffu)) >> 16);
  return result;
}

// IEEE half precision, only for reading and writing files.
float half_to_float(uint16_t bits);
uint16_t float_to_half(float x);

// 8-bit floats of the OCP specification. E4M3 has no infinity: 0x7f/0xff are NaN, maximum 448;
// E5M2 is IEEE-like, maximum 57344. Conversion rounds to nearest even and saturates finite values;
// infinity saturates too; NaN stays NaN.
struct Float8E4M3 {
  uint8_t bits = 0;
  static constexpr float max = 448.0f;
  Float8E4M3() = default;
  explicit Float8E4M3(float x);
  explicit operator float() const;
};
struct Float8E5M2 {
  uint8_t bits = 0;
  static constexpr float max = 57344.0f;
  Float8E5M2() = default;
  explicit Float8E5M2(float x);
  explicit operator float() const;
};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::f32;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::f64;
};
template <>
struct DtypeOf<BFloat16> {
  static constexpr Dtype value = Dtype::bf16;
};
template <>
struct DtypeOf<Float8E4M3> {
  static constexpr Dtype value = Dtype::f8e4m3;
};
template <>
struct DtypeOf<Float8E5M2> {
  static constexpr Dtype value = Dtype::f8e5m2;
};
template <>
struct DtypeOf<int8_t> {
  static constexpr Dtype value = Dtype::i8;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::u8;
};
template <>
struct DtypeOf<int16_t> {
  static constexpr Dtype value = Dtype::i16;
};
template <>
struct DtypeOf<uint16_t> {
  static constexpr Dtype value = Dtype::u16;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::i32;
};
template <>
struct DtypeOf<uint32_t> {
  static constexpr Dtype value = Dtype::u32;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr Dtype value = Dtype::i64;
};
template <>
struct DtypeOf<uint64_t> {
  static constexpr Dtype value = Dtype::u64;
};
template <class T>
inline constexpr Dtype dtype_of = DtypeOf<T>::value;

// Calls f.template operator()<T>() with T = float, BFloat16 or double.
template <class F>
decltype(auto) dispatch_float(Dtype dtype, F&& f);

[[noreturn]] void fail_dispatch(Dtype dtype);

template <class F>
decltype(auto) dispatch_float(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      return f.template operator()<float>();
    case Dtype::bf16:
      return f.template operator()<BFloat16>();
    case Dtype::f64:
      return f.template operator()<double>();
    default:
      fail_dispatch(dtype);
  }
}

}  // namespace shoestring
