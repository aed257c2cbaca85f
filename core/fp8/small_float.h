#pragma once
// The binary formats narrower than bf16 that training stores values in, described by numbers, and
// the plain conversions that the vector kernels are compared with.
//
//   format  bits  bias  largest  smallest normal, subnormal  specials
//   e4m3       8     7      448  2^-6, 2^-9                  no infinity, NaN 0x7f and 0xff
//   e5m2       8    15    57344  2^-14, 2^-16                IEEE-like
//   e5m6      12    15    65024  2^-14, 2^-20                IEEE-like
//
// (OCP 8-bit floating point specification, 2023; DeepSeek-V3 report, section 3.3.3 for E5M6.)

#include <cstdint>

#include "core/dtype.h"

namespace shoestring {

struct SmallFloat {
  int mantissa_bits, bias;
  float largest;
  uint32_t nan;       // the code of a NaN
  uint32_t infinity;  // the first code without a finite value
  int bits() const { return mantissa_bits == 6 ? 12 : 8; }
};
inline constexpr SmallFloat e4m3_facts = {3, 7, 448.0f, 0x7f, 0x7f};
inline constexpr SmallFloat e5m2_facts = {2, 15, 57344.0f, 0x7e, 0x7c};
inline constexpr SmallFloat e5m6_facts = {6, 15, 65024.0f, 0x7e0, 0x7c0};

// Of f8e4m3 or f8e5m2; others are an error.
const SmallFloat& facts_of(Dtype format);

// Rounds to nearest even; what is beyond the largest saturates, infinity too; NaN stays NaN.
uint32_t encode(const SmallFloat& format, float x);
float decode(const SmallFloat& format, uint32_t code);

// What the vector kernels convert at a time: n neighbours and their scales.
struct CodeRow {
  int64_t n;
  const float* scales;
  bool each;  // a scale for each element, or one for all
  bool e5m2;
};

}  // namespace shoestring
