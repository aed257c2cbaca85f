#include "io/convert_elements.h"

#include <cstring>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Half {
  uint16_t bits;
  explicit operator float() const { return half_to_float(bits); }
};

template <class From, class To>
void convert(const std::byte* from, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < count; ++i) {
    From x;
    std::memcpy(&x, from + i * static_cast<int64_t>(sizeof x), sizeof x);
    const To y(static_cast<float>(x));
    std::memcpy(out + i * static_cast<int64_t>(sizeof y), &y, sizeof y);
  }
}

template <class From>
void convert_from(const std::byte* from, int64_t count, Dtype to, std::byte* out) {
  return to == Dtype::f32 ? convert<From, float>(from, count, out)
                          : convert<From, BFloat16>(from, count, out);
}

}  // namespace

void convert_elements(const std::byte* from, Dtype stored, int64_t count, Dtype to,
                      std::byte* out) {
  if (to == stored) {
    if (count > 0) std::memcpy(out, from, static_cast<size_t>(count) * size_of(stored));
    return;
  }
  if (to != Dtype::f32 && to != Dtype::bf16) {
    fail(cat(name_of(stored), " cannot be read as ", name_of(to), ", only as itself, f32 or bf16"));
  }
  switch (stored) {
    case Dtype::f32:
      return convert_from<float>(from, count, to, out);
    case Dtype::f64:
      return convert_from<double>(from, count, to, out);
    case Dtype::bf16:
      return convert_from<BFloat16>(from, count, to, out);
    case Dtype::f16:
      return convert_from<Half>(from, count, to, out);
    case Dtype::f8e4m3:
      return convert_from<Float8E4M3>(from, count, to, out);
    case Dtype::f8e5m2:
      return convert_from<Float8E5M2>(from, count, to, out);
    default:
      fail(cat("integers (", name_of(stored), ") are read as they are, not as ", name_of(to)));
  }
}

}  // namespace shoestring
