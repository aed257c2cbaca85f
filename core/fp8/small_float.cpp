#include "core/fp8/small_float.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

const SmallFloat& facts_of(Dtype format) {
  if (format == Dtype::f8e4m3) return e4m3_facts;
  if (format == Dtype::f8e5m2) return e5m2_facts;
  fail(cat("codes of type ", name_of(format), " are not 8-bit floats"));
}

uint32_t encode(const SmallFloat& f, float x) {
  const uint32_t sign = std::signbit(x) ? 1u << (f.bits() - 1) : 0;
  if (std::isnan(x)) return sign | f.nan;
  const double magnitude = std::min(std::fabs(static_cast<double>(x)), double{f.largest});
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), 1 - f.bias);
  // Units in the last place: a count that carries into the next binade by itself.
  const auto units =
      static_cast<int>(std::nearbyint(std::ldexp(magnitude, f.mantissa_bits - exponent)));
  return sign | static_cast<uint32_t>(((exponent + f.bias - 1) << f.mantissa_bits) + units);
}

float decode(const SmallFloat& f, uint32_t code) {
  const uint32_t sign = 1u << (f.bits() - 1), magnitude = code & (sign - 1);
  float value = std::numeric_limits<float>::quiet_NaN();
  if (magnitude < f.infinity) {
    const int field = static_cast<int>(magnitude >> f.mantissa_bits);
    const int fraction = static_cast<int>(magnitude) & ((1 << f.mantissa_bits) - 1);
    const int units = field == 0 ? fraction : fraction + (1 << f.mantissa_bits);
    value = std::ldexp(static_cast<float>(units), std::max(field, 1) - f.bias - f.mantissa_bits);
  } else if (magnitude == f.infinity && f.infinity != f.nan) {
    value = std::numeric_limits<float>::infinity();
  }
  return (code & sign) != 0 ? -value : value;
}

}  // namespace shoestring
