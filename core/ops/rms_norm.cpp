#include "core/ops/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/ops/column_sums.h"
#include "core/ops/convert.h"
#include "core/ops/rms_norm_reference.h"
#include "core/parallel_for.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/rms_norm.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// Sum of squares of a row, after the addition of delta where there is one.
template <class T>
HWY_INLINE float add_and_square(const NormForward& a, int64_t at) {
  const T* x = a.x.data<T>() + at;
  Floats squares = set(0);
  if (!a.delta) {
    for_lanes(a.width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats h = load(x + i, lanes);
      squares = hn::MulAdd(h, h, squares);
    });
    return sum(squares);
  }
  const T* delta = a.delta.data<T>() + at;
  T* to = a.h.data<T>() + at;
  const Floats multiplier = set(static_cast<float>(a.delta_multiplier));
  for_lanes(a.width, [&](int64_t i, auto lanes) HWY_ATTR {
    const Floats h = hn::MulAdd(load(delta + i, lanes), multiplier, load(x + i, lanes));
    const Floats kept = round_as<T>(h);
    store(kept, to + i, lanes);
    squares = hn::MulAdd(kept, kept, squares);
  });
  return sum(squares);
}

template <class T>
HWY_INLINE void forward_rows(const NormForward& a, int64_t begin, int64_t end) {
  const T* gain = a.gain.data<T>();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.width;
    const double mean = add_and_square<T>(a, at) / static_cast<double>(a.width);
    const float inverse = static_cast<float>(1 / std::sqrt(mean + a.eps));
    a.inverse.data<float>()[row] = inverse;
    const T* h = (a.delta ? a.h : a.x).template data<T>() + at;
    T* n = a.n.data<T>() + at;
    const Floats scale = set(inverse);
    for_lanes(a.width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats unit = round_as<T>(hn::Mul(load(h + i, lanes), scale));
      store(hn::Mul(unit, load(gain + i, lanes)), n + i, lanes);
    });
  }
}

// One block of rows; `partial` [width] receives the block's part of the gain's gradient.
template <class T>
HWY_INLINE void backward_rows(const NormBackward& a, int64_t begin, int64_t end, float* partial) {
  const T* gain = a.gain.data<T>();
  const T* dh_all = a.dh ? a.dh.data<T>() : nullptr;
  T* ddelta_all = a.ddelta ? a.ddelta.data<T>() : nullptr;
  const Floats multiplier = set(static_cast<float>(a.delta_multiplier));
  std::memset(partial, 0, static_cast<size_t>(a.width) * sizeof(float));
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.width;
    const T* h = a.h.data<T>() + at;
    const T* dn = a.dn.data<T>() + at;
    const float inverse_rms = a.inverse.data<float>()[row];
    const Floats inverse = set(inverse_rms);
    Floats dot = set(0);
    for_lanes(a.width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats term = hn::Mul(load(dn + i, lanes), hn::Mul(load(h + i, lanes), inverse));
      store(hn::Add(load(partial + i, lanes), term), partial + i, lanes);
      dot = hn::MulAdd(term, load(gain + i, lanes), dot);
    });
    const float mean = sum(dot) / static_cast<float>(a.width);
    const Floats scaled_mean = set(mean * inverse_rms);
    T* dx = a.dx.data<T>() + at;
    for_lanes(a.width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats g = hn::Mul(load(dn + i, lanes), load(gain + i, lanes));
      Floats d = hn::Mul(hn::NegMulAdd(load(h + i, lanes), scaled_mean, g), inverse);
      if (dh_all != nullptr) d = hn::Add(d, load(dh_all + at + i, lanes));
      store(d, dx + i, lanes);
      if (ddelta_all != nullptr) store(hn::Mul(d, multiplier), ddelta_all + at + i, lanes);
    });
  }
}

void forward_f32(const NormForward& a, int64_t begin, int64_t end) {
  forward_rows<float>(a, begin, end);
}
void forward_bf16(const NormForward& a, int64_t begin, int64_t end) {
  forward_rows<BFloat16>(a, begin, end);
}
void backward_f32(const NormBackward& a, int64_t begin, int64_t end, float* partial) {
  backward_rows<float>(a, begin, end, partial);
}
void backward_bf16(const NormBackward& a, int64_t begin, int64_t end, float* partial) {
  backward_rows<BFloat16>(a, begin, end, partial);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_bf16);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_bf16);

constexpr int64_t elements_a_range = 8192;

void forward_cpu(Stream& stream, const NormForward& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    if (a.x.dtype() == Dtype::f64) {
      reference::rms_norm_forward<double>({.rows = a.rows,
                                           .width = a.width,
                                           .eps = a.eps,
                                           .delta_multiplier = a.delta_multiplier,
                                           .x = a.x.data<double>(),
                                           .delta = a.delta ? a.delta.data<double>() : nullptr,
                                           .gain = a.gain.data<double>(),
                                           .h = a.delta ? a.h.data<double>() : nullptr,
                                           .n = a.n.data<double>(),
                                           .inverse = a.inverse.data<double>()});
      return;
    }
    const bool narrow = a.x.dtype() == Dtype::bf16;
    parallel_for(device, a.rows, rows_a_range(a.width, elements_a_range),
                 [&](int64_t begin, int64_t end) {
                   if (narrow) return HWY_DYNAMIC_DISPATCH(forward_bf16)(a, begin, end);
                   HWY_DYNAMIC_DISPATCH(forward_f32)(a, begin, end);
                 });
  });
}

void backward_reference(Device& device, const NormBackward& a) {
  Tensor partial = Tensor::zeros(device, {1, a.width}, Dtype::f64, MemoryKind::workspace);
  reference::rms_norm_backward<double>({.rows = a.rows,
                                        .width = a.width,
                                        .delta_multiplier = a.delta_multiplier,
                                        .h = a.h.data<double>(),
                                        .inverse = a.inverse.data<double>(),
                                        .gain = a.gain.data<double>(),
                                        .dh = a.dh ? a.dh.data<double>() : nullptr,
                                        .dn = a.dn.data<double>(),
                                        .dx = a.dx.data<double>(),
                                        .ddelta = a.ddelta ? a.ddelta.data<double>() : nullptr,
                                        .dgain = partial.data<double>()});
  add_column_sums(device, partial, a.dgain);
}

void backward_cpu(Stream& stream, const NormBackward& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    if (a.h.dtype() == Dtype::f64) return backward_reference(device, a);
    const int64_t block = column_sum_block(a.rows), blocks = column_sum_blocks(a.rows);
    Tensor partials(device, {blocks, a.width}, Dtype::f32, MemoryKind::workspace);
    const bool narrow = a.h.dtype() == Dtype::bf16;
    const int64_t grain = rows_a_range(block * a.width, elements_a_range);
    parallel_for(device, blocks, grain, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        const int64_t begin = b * block, end = std::min(begin + block, a.rows);
        float* partial = partials.data<float>() + b * a.width;
        if (narrow) {
          HWY_DYNAMIC_DISPATCH(backward_bf16)(a, begin, end, partial);
        } else {
          HWY_DYNAMIC_DISPATCH(backward_f32)(a, begin, end, partial);
        }
      }
    });
    add_column_sums(device, partials, a.dgain);
  });
}

}  // namespace

void norm_rows(Stream& stream, std::string_view op, const NormForward& a) {
  check_tensor(op, "gain", a.gain, {a.width}, a.x.dtype());
  on(stream, op, forward_cpu, nullptr, a);
}

void norm_rows_backward(Stream& stream, std::string_view op, const NormBackward& a) {
  check_tensor(op, "dn", a.dn, a.h.shape(), a.h.dtype());
  check_tensor(op, "dgain", a.dgain, {a.width}, a.dgain.dtype());
  on(stream, op, backward_cpu, nullptr, a);
}

Tensors<2> RmsNorm::forward(Stream& stream, const Attributes& attributes, const Tensors<2>& inputs,
                            const Tensors<1>& gain, Saved& saved) {
  const auto& [x, delta] = inputs;
  Device& device = stream.device();
  if (delta) check_tensor(name, "delta", delta, x.shape(), x.dtype());
  const Dtype statistics = x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  NormForward a{.rows = x.rows(),
                .width = x.columns(),
                .eps = attributes.eps,
                .delta_multiplier = attributes.delta_multiplier,
                .x = x,
                .delta = delta,
                .gain = gain[0],
                .h = delta ? Tensor(device, x.shape(), x.dtype()) : Tensor(),
                .n = Tensor(device, x.shape(), x.dtype()),
                .inverse = Tensor(device, {x.rows()}, statistics)};
  norm_rows(stream, name, a);
  saved = {.h = delta ? a.h : x, .inverse = a.inverse, .has_delta = static_cast<bool>(delta)};
  return {saved.h, a.n};
}

Tensors<2> RmsNorm::grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                               const Tensors<1>& gain, const Tensors<2>& dy,
                               const Tensors<1>& dgain) {
  const auto& [dh, dn] = dy;
  const Tensor& h = saved.h;
  Device& device = stream.device();
  if (dh) check_tensor(name, "dh", dh, h.shape(), h.dtype());
  const bool own_delta = saved.has_delta && attributes.delta_multiplier != 1;
  if (!dh && !dn) return {};
  Tensor dx = dh, ddelta;
  if (dn) {
    dx = Tensor(device, h.shape(), h.dtype());
    if (own_delta) ddelta = Tensor(device, h.shape(), h.dtype());
    norm_rows_backward(stream, name,
                       {.rows = h.rows(),
                        .width = h.columns(),
                        .delta_multiplier = attributes.delta_multiplier,
                        .h = h,
                        .inverse = saved.inverse,
                        .gain = gain[0],
                        .dh = dh,
                        .dn = dn,
                        .dx = dx,
                        .ddelta = ddelta,
                        .dgain = dgain[0]});
  } else if (own_delta) {
    ddelta = convert(stream, dh, dh.dtype());
    scale(stream, ddelta, attributes.delta_multiplier);
  }
  if (saved.has_delta && !own_delta) ddelta = dx;
  return {dx, ddelta};
}

}  // namespace shoestring
#endif  // HWY_ONCE
