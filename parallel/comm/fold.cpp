#include "parallel/comm/fold.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/text.h"

namespace shoestring {
namespace {

struct Half {  // f16 by core's conversions
  uint16_t bits = 0;
  Half() = default;
  explicit Half(float x) : bits(float_to_half(x)) {}
  explicit operator float() const { return half_to_float(bits); }
};

// Unsigned integers wrap without undefined behaviour, and sums of signed ones have the same bits;
// max and min need the sign.
template <class T, Reduce kReduce>
struct AccumulatorOf {
  using Type = float;
};
template <Reduce kReduce>
struct AccumulatorOf<double, kReduce> {
  using Type = double;
};
template <class T, Reduce kReduce>
requires std::is_integral_v<T>
struct AccumulatorOf<T, kReduce> {
  using Type = std::conditional_t<kReduce == Reduce::sum, std::make_unsigned_t<T>, T>;
};

template <Reduce kReduce, class A>
A combine(A a, A b) {
  if constexpr (kReduce == Reduce::sum) {
    return static_cast<A>(a + b);
  } else {
    if constexpr (std::is_floating_point_v<A>) {
      if (a != a) return a;
      if (b != b) return b;
    }
    if constexpr (kReduce == Reduce::max) {
      return a < b ? b : a;
    } else {
      return b < a ? b : a;
    }
  }
}

// Blocks keep the accumulators in the first-level cache, so every input is read once.
template <class T, Reduce kReduce>
void fold_blocks(std::span<const View> inputs, Buffer out) {
  using A = typename AccumulatorOf<T, kReduce>::Type;
  constexpr int64_t block = 1024;
  std::array<A, block> acc;
  T* result = reinterpret_cast<T*>(out.data);
  for (int64_t begin = 0; begin < out.count; begin += block) {
    const int64_t n = std::min(block, out.count - begin);
    const T* first = reinterpret_cast<const T*>(inputs[0].data) + begin;
    for (int64_t i = 0; i < n; ++i) acc[static_cast<size_t>(i)] = static_cast<A>(first[i]);
    for (const View& input : inputs.subspan(1)) {
      const T* x = reinterpret_cast<const T*>(input.data) + begin;
      for (int64_t i = 0; i < n; ++i) {
        A& a = acc[static_cast<size_t>(i)];
        a = combine<kReduce>(a, static_cast<A>(x[i]));
      }
    }
    for (int64_t i = 0; i < n; ++i) result[begin + i] = static_cast<T>(acc[static_cast<size_t>(i)]);
  }
}

template <class T>
void fold_type(std::span<const View> inputs, Buffer out, Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return fold_blocks<T, Reduce::sum>(inputs, out);
    case Reduce::max:
      return fold_blocks<T, Reduce::max>(inputs, out);
    case Reduce::min:
      return fold_blocks<T, Reduce::min>(inputs, out);
  }
}

using FoldFunction = void (*)(std::span<const View>, Buffer, Reduce);

FoldFunction fold_function(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return fold_type<float>;
    case Dtype::f64:
      return fold_type<double>;
    case Dtype::bf16:
      return fold_type<BFloat16>;
    case Dtype::f16:
      return fold_type<Half>;
    case Dtype::f8e4m3:
      return fold_type<Float8E4M3>;
    case Dtype::f8e5m2:
      return fold_type<Float8E5M2>;
    case Dtype::i8:
      return fold_type<int8_t>;
    case Dtype::u8:
      return fold_type<uint8_t>;
    case Dtype::i16:
      return fold_type<int16_t>;
    case Dtype::u16:
      return fold_type<uint16_t>;
    case Dtype::i32:
      return fold_type<int32_t>;
    case Dtype::u32:
      return fold_type<uint32_t>;
    case Dtype::i64:
      return fold_type<int64_t>;
    case Dtype::u64:
      return fold_type<uint64_t>;
  }
  fail("a reduction of an element type that does not exist");
}

}  // namespace

void fold(std::span<const View> inputs, Buffer out, Reduce reduce) {
  check(!inputs.empty(), "a fold of no inputs");
  for (const View& input : inputs) {
    if (input.count != out.count || input.dtype != out.dtype) {
      fail(cat("a fold of ", input.count, " x ", name_of(input.dtype), " into ", out.count, " x ",
               name_of(out.dtype)));
    }
  }
  fold_function(out.dtype)(inputs, out, reduce);
}

void add_into(std::span<float> acc, std::span<const float> x) {
  check(acc.size() == x.size(), "a sum of spans of different lengths");
  for (size_t i = 0; i < acc.size(); ++i) acc[i] += x[i];
}

}  // namespace shoestring
