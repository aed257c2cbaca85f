#include "core/ops/convert.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/convert.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using V32 = hn::Vec<F32>;

V32 load(F32 d, const float* p) { return hn::LoadU(d, p); }
V32 load(F32 d, const BFloat16* p) {
  const hn::RebindToUnsigned<F32> du;
  const hn::Rebind<uint16_t, F32> d16;
  const auto bits = hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}
void store(F32 d, V32 v, float* p) { hn::StoreU(v, d, p); }
// The same rounding as BFloat16(float): nearest even, NaN made quiet.
void store(F32, V32 v, BFloat16* p) {
  const hn::RebindToUnsigned<F32> du;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<uint16_t, F32> d16;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, rounded);
  const auto high = hn::BitCast(di, hn::ShiftRight<16>(chosen));
  hn::StoreU(hn::DemoteTo(d16, high), d16, reinterpret_cast<uint16_t*>(p));
}

template <class To, class From>
void convert_loop(To* to, const From* from, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(d, load(d, from + i), to + i);
  for (; i < n; ++i) to[i] = static_cast<To>(static_cast<float>(from[i]));
}

template <class To, class From>
void accumulate_loop(To* into, const From* x, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    store(d, hn::Add(load(d, into + i), load(d, x + i)), into + i);
  }
  for (; i < n; ++i) {
    into[i] = static_cast<To>(static_cast<float>(into[i]) + static_cast<float>(x[i]));
  }
}

template <class T>
void scale_loop(T* x, float factor, size_t n) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const auto by = hn::Set(d, factor);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(d, hn::Mul(load(d, x + i), by), x + i);
  for (; i < n; ++i) x[i] = static_cast<T>(static_cast<float>(x[i]) * factor);
}

void narrow(BFloat16* to, const float* from, size_t n) { convert_loop(to, from, n); }
void widen(float* to, const BFloat16* from, size_t n) { convert_loop(to, from, n); }
void add_f32(float* into, const float* x, size_t n) { accumulate_loop(into, x, n); }
void add_bf16(BFloat16* into, const BFloat16* x, size_t n) { accumulate_loop(into, x, n); }
void add_mixed(float* into, const BFloat16* x, size_t n) { accumulate_loop(into, x, n); }
void scale_f32(float* x, float factor, size_t n) { scale_loop(x, factor, n); }
void scale_bf16(BFloat16* x, float factor, size_t n) { scale_loop(x, factor, n); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(narrow);
HWY_EXPORT(widen);
HWY_EXPORT(add_f32);
HWY_EXPORT(add_bf16);
HWY_EXPORT(add_mixed);
HWY_EXPORT(scale_f32);
HWY_EXPORT(scale_bf16);

constexpr int64_t grain = 1 << 14;

// body(begin, count) on pieces of a tensor, in the stream's order; `a` and `b` keep memory alive.
template <class F>
void for_pieces(Stream& stream, const Tensor& a, const Tensor& b, F body) {
  if (stream.device().kind() != DeviceKind::cpu) fail_no_kernel("convert", stream.device().kind());
  stream.run([&device = stream.device(), a, b, body] {
    parallel_for(device, a.elements(), grain, [&](int64_t begin, int64_t end) {
      body(begin, static_cast<size_t>(end - begin));
    });
  });
}

template <class To, class From>
void convert_plain(To* to, const From* from, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, double>) {
      to[i] = static_cast<float>(from[i]);
    } else {
      to[i] = static_cast<To>(static_cast<float>(from[i]));
    }
  }
}

[[noreturn]] void fail_types(std::string_view what, const Tensor& into, const Tensor& x) {
  fail(cat("cannot ", what, " ", x.text(), " into ", into.text()));
}

}  // namespace

void convert_into(Stream& stream, const Tensor& out, const Tensor& x) {
  if (out.elements() != x.elements()) fail_types("convert", out, x);
  if (out.dtype() == x.dtype()) {
    const size_t width = size_of(x.dtype());
    for_pieces(stream, out, x, [=](int64_t begin, size_t n) {
      const size_t offset = static_cast<size_t>(begin) * width;
      std::memcpy(out.raw() + offset, x.raw() + offset, n * width);
    });
  } else if (out.dtype() == Dtype::bf16 && x.dtype() == Dtype::f32) {
    for_pieces(stream, out, x,
               [to = out.data<BFloat16>(), from = x.data<float>()](int64_t i, size_t n) {
                 HWY_DYNAMIC_DISPATCH(narrow)(to + i, from + i, n);
               });
  } else if (out.dtype() == Dtype::f32 && x.dtype() == Dtype::bf16) {
    for_pieces(stream, out, x,
               [to = out.data<float>(), from = x.data<BFloat16>()](int64_t i, size_t n) {
                 HWY_DYNAMIC_DISPATCH(widen)(to + i, from + i, n);
               });
  } else {  // to or from f64, which only tests do
    dispatch_float(out.dtype(), [&]<class To>() {
      dispatch_float(x.dtype(), [&]<class From>() {
        for_pieces(stream, out, x,
                   [to = out.data<To>(), from = x.data<From>()](int64_t i, size_t n) {
                     convert_plain(to + i, from + i, n);
                   });
      });
    });
  }
}

Tensor convert(Stream& stream, const Tensor& x, Dtype to, MemoryKind kind) {
  Tensor out(stream.device(), x.shape(), to, kind);
  convert_into(stream, out, x);
  return out;
}

void accumulate(Stream& stream, const Tensor& into, const Tensor& x) {
  if (into.elements() != x.elements()) fail_types("add", into, x);
  const auto types = std::pair(into.dtype(), x.dtype());
  if (types == std::pair(Dtype::f32, Dtype::f32)) {
    for_pieces(stream, into, x,
               [to = into.data<float>(), from = x.data<float>()](int64_t i, size_t n) {
                 HWY_DYNAMIC_DISPATCH(add_f32)(to + i, from + i, n);
               });
  } else if (types == std::pair(Dtype::bf16, Dtype::bf16)) {
    for_pieces(stream, into, x,
               [to = into.data<BFloat16>(), from = x.data<BFloat16>()](int64_t i, size_t n) {
                 HWY_DYNAMIC_DISPATCH(add_bf16)(to + i, from + i, n);
               });
  } else if (types == std::pair(Dtype::f32, Dtype::bf16)) {
    for_pieces(stream, into, x,
               [to = into.data<float>(), from = x.data<BFloat16>()](int64_t i, size_t n) {
                 HWY_DYNAMIC_DISPATCH(add_mixed)(to + i, from + i, n);
               });
  } else if (types == std::pair(Dtype::f64, Dtype::f64)) {
    for_pieces(stream, into, x,
               [to = into.data<double>(), from = x.data<double>()](int64_t i, size_t n) {
                 for (size_t j = 0; j < n; ++j)
                   to[i + static_cast<int64_t>(j)] += from[i + static_cast<int64_t>(j)];
               });
  } else {
    fail_types("add", into, x);
  }
}

void scale(Stream& stream, const Tensor& x, double factor) {
  const auto narrow_factor = static_cast<float>(factor);
  if (x.dtype() == Dtype::f32) {
    for_pieces(stream, x, x, [to = x.data<float>(), narrow_factor](int64_t i, size_t n) {
      HWY_DYNAMIC_DISPATCH(scale_f32)(to + i, narrow_factor, n);
    });
  } else if (x.dtype() == Dtype::bf16) {
    for_pieces(stream, x, x, [to = x.data<BFloat16>(), narrow_factor](int64_t i, size_t n) {
      HWY_DYNAMIC_DISPATCH(scale_bf16)(to + i, narrow_factor, n);
    });
  } else {
    for_pieces(stream, x, x, [to = x.data<double>(), factor](int64_t i, size_t n) {
      for (size_t j = 0; j < n; ++j) to[i + static_cast<int64_t>(j)] *= factor;
    });
  }
}

void fill(Stream& stream, const Tensor& x, double value) {
  dispatch_float(x.dtype(), [&]<class T>() {
    const T filler = [&] {
      if constexpr (std::is_same_v<T, BFloat16>) {
        return BFloat16(static_cast<float>(value));
      } else {
        return static_cast<T>(value);
      }
    }();
    for_pieces(stream, x, x,
               [to = x.data<T>(), filler](int64_t i, size_t n) { std::fill_n(to + i, n, filler); });
  });
}

}  // namespace shoestring
#endif  // HWY_ONCE
