#include "core/dtype.h"

#include <array>
#include <string>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct DtypeFact {
  Dtype dtype;
  std::string_view name;
  size_t bytes;
  bool is_float;
};
constexpr std::array<DtypeFact, 14> facts = {{{Dtype::f32, "f32", 4, true},
                                              {Dtype::f64, "f64", 8, true},
                                              {Dtype::bf16, "bf16", 2, true},
                                              {Dtype::f16, "f16", 2, true},
                                              {Dtype::f8e4m3, "f8e4m3", 1, true},
                                              {Dtype::f8e5m2, "f8e5m2", 1, true},
                                              {Dtype::i8, "i8", 1, false},
                                              {Dtype::u8, "u8", 1, false},
                                              {Dtype::i16, "i16", 2, false},
                                              {Dtype::u16, "u16", 2, false},
                                              {Dtype::i32, "i32", 4, false},
                                              {Dtype::u32, "u32", 4, false},
                                              {Dtype::i64, "i64", 8, false},
                                              {Dtype::u64, "u64", 8, false}}};

const DtypeFact& fact(Dtype dtype) {
  const auto index = static_cast<size_t>(dtype);
  if (index >= facts.size()) fail(cat("dtype code ", index, " is not one of ours"));
  return facts[index];
}

// Rounds a finite float to a small binary format by scaling its magnitude to an integer count of
// units in the last place. Exact: the scaling is by powers of two in double.
uint8_t encode_float8(float x, int mantissa_bits, int min_exponent, float max, uint8_t nan_code) {
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return sign | nan_code;
  const double magnitude = std::fabs(static_cast<double>(x));
  const auto largest = [&] {
    // Every bit of exponent and mantissa that the maximum uses.
    int exponent = std::ilogb(max);
    double unit = std::ldexp(1.0, exponent - mantissa_bits);
    auto steps = static_cast<int>(max / unit);
    return static_cast<uint8_t>(((exponent - min_exponent + 1) << mantissa_bits) +
                                (steps - (1 << mantissa_bits)));
  };
  if (magnitude == 0) return sign;
  if (std::isinf(x)) return sign | largest();
  int exponent = std::max(std::ilogb(magnitude), min_exponent);
  const double unit = std::ldexp(1.0, exponent - mantissa_bits);
  auto steps = static_cast<int>(std::nearbyint(magnitude / unit));  // nearest even
  if (steps * unit > max) return sign | largest();
  // steps may carry into the next binade or out of the subnormals; the code is linear in both.
  const int code = ((exponent - min_exponent) << mantissa_bits) + steps;
  return sign | static_cast<uint8_t>(code);
}

float decode_float8(uint8_t code, int mantissa_bits, int min_exponent) {
  const int magnitude = code & 0x7f;
  const int field = magnitude >> mantissa_bits;
  const int fraction = magnitude & ((1 << mantissa_bits) - 1);
  const int steps = field == 0 ? fraction : fraction + (1 << mantissa_bits);
  const int exponent = (field == 0 ? min_exponent : field - 1 + min_exponent) - mantissa_bits;
  const float value = std::ldexp(static_cast<float>(steps), exponent);
  return (code & 0x80) != 0 ? -value : value;
}

}  // namespace

size_t size_of(Dtype dtype) { return fact(dtype).bytes; }
std::string_view name_of(Dtype dtype) { return fact(dtype).name; }
bool is_float(Dtype dtype) { return fact(dtype).is_float; }

Dtype dtype_from_name(std::string_view name) {
  std::string known;
  for (const DtypeFact& f : facts) {
    if (f.name == name) return f.dtype;
    append(known, known.empty() ? "" : ", ", f.name);
  }
  fail_usage(cat("dtype '", name, "' is unknown; the names are ", known));
}

void fail_dispatch(Dtype dtype) {
  fail(cat("no arithmetic for dtype ", name_of(dtype), "; use f32, bf16 or f64"));
}

float half_to_float(uint16_t bits) {
  const int field = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  float value;
  if (field == 31) {
    value = fraction == 0 ? std::numeric_limits<float>::infinity()
                          : std::numeric_limits<float>::quiet_NaN();
  } else {
    value = field == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                       : std::ldexp(static_cast<float>(fraction + 1024), field - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

uint16_t float_to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return sign | 0x7e00;
  const float magnitude = std::fabs(x);
  if (magnitude >= 65520.0f)
    return sign | 0x7c00;  // half-way to the next binade rounds to infinity
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + steps));
}

Float8E4M3::Float8E4M3(float x) : bits(encode_float8(x, 3, -6, max, 0x7f)) {}
Float8E4M3::operator float() const {
  if ((bits & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  return decode_float8(bits, 3, -6);
}

Float8E5M2::Float8E5M2(float x) : bits(encode_float8(x, 2, -14, max, 0x7e)) {}
Float8E5M2::operator float() const {
  const int magnitude = bits & 0x7f;
  if (magnitude > 0x7c) return std::numeric_limits<float>::quiet_NaN();
  if (magnitude == 0x7c) {
    const float infinity = std::numeric_limits<float>::infinity();
    return (bits & 0x80) != 0 ? -infinity : infinity;
  }
  return decode_float8(bits, 2, -14);
}

}  // namespace shoestring
