#include "core/ops/swiglu.h"

#include <algorithm>

#include "core/check.h"
#include "core/ops/swiglu_reference.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/swiglu.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void swiglu_rows(const Tensor& gu, const Tensor& y, int64_t begin, int64_t end) {
  const int64_t width = y.columns();
  for (int64_t row = begin; row < end; ++row) {
    const T* gate = gu.data<T>() + row * 2 * width;
    T* to = y.data<T>() + row * width;
    for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats g = load(gate + i, lanes), up = load(gate + width + i, lanes);
      store(hn::Mul(hn::Mul(g, sigmoid(g)), up), to + i, lanes);
    });
  }
}

template <class T>
HWY_INLINE void gradient_rows(const Tensor& gu, const Tensor& dy, const Tensor& dgu, int64_t begin,
                              int64_t end) {
  const int64_t width = dy.columns();
  const Floats one = set(1.0f);
  for (int64_t row = begin; row < end; ++row) {
    const T* gate = gu.data<T>() + row * 2 * width;
    const T* from = dy.data<T>() + row * width;
    T* to = dgu.data<T>() + row * 2 * width;
    for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
      const Floats g = load(gate + i, lanes), up = load(gate + width + i, lanes);
      const Floats d = load(from + i, lanes), s = sigmoid(g), silu = hn::Mul(g, s);
      const Floats slope = hn::MulAdd(silu, hn::Sub(one, s), s);
      store(hn::Mul(hn::Mul(d, up), slope), to + i, lanes);
      store(hn::Mul(d, silu), to + width + i, lanes);
    });
  }
}

void forward_f32(const Tensor& gu, const Tensor& y, int64_t begin, int64_t end) {
  swiglu_rows<float>(gu, y, begin, end);
}
void forward_bf16(const Tensor& gu, const Tensor& y, int64_t begin, int64_t end) {
  swiglu_rows<BFloat16>(gu, y, begin, end);
}
void backward_f32(const Tensor& gu, const Tensor& dy, const Tensor& dgu, int64_t begin,
                  int64_t end) {
  gradient_rows<float>(gu, dy, dgu, begin, end);
}
void backward_bf16(const Tensor& gu, const Tensor& dy, const Tensor& dgu, int64_t begin,
                   int64_t end) {
  gradient_rows<BFloat16>(gu, dy, dgu, begin, end);
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

constexpr int64_t elements_a_range = 4096;  // exponentials

void forward_cpu(Stream& stream, const Tensor& input, const Tensor& output) {
  stream.run([&device = stream.device(), gu = input, y = output] {
    parallel_for(device, y.rows(), rows_a_range(y.columns(), elements_a_range),
                 [&](int64_t begin, int64_t end) {
                   if (y.dtype() == Dtype::bf16)
                     return HWY_DYNAMIC_DISPATCH(forward_bf16)(gu, y, begin, end);
                   if (y.dtype() == Dtype::f32)
                     return HWY_DYNAMIC_DISPATCH(forward_f32)(gu, y, begin, end);
                   const int64_t width = y.columns();
                   reference::swiglu_forward(end - begin, width,
                                             gu.data<double>() + begin * 2 * width,
                                             y.data<double>() + begin * width);
                 });
  });
}

void backward_cpu(Stream& stream, const Tensor& input, const Tensor& gradient,
                  const Tensor& output) {
  stream.run([&device = stream.device(), gu = input, dy = gradient, dgu = output] {
    parallel_for(
        device, dy.rows(), rows_a_range(dy.columns(), elements_a_range),
        [&](int64_t begin, int64_t end) {
          const Dtype dtype = dy.dtype();
          if (dtype == Dtype::bf16)
            return HWY_DYNAMIC_DISPATCH(backward_bf16)(gu, dy, dgu, begin, end);
          if (dtype == Dtype::f32)
            return HWY_DYNAMIC_DISPATCH(backward_f32)(gu, dy, dgu, begin, end);
          const int64_t width = dy.columns();
          reference::swiglu_backward<double>({.rows = end - begin,
                                              .width = width,
                                              .gu = gu.data<double>() + begin * 2 * width,
                                              .dy = dy.data<double>() + begin * width,
                                              .dgu = dgu.data<double>() + begin * 2 * width});
        });
  });
}

}  // namespace

Tensors<1> Swiglu::forward(Stream& stream, const Attributes&, const Tensors<1>& inputs,
                           Saved& saved) {
  const Tensor& gu = inputs[0];
  if (gu.columns() % 2 != 0) {
    fail(cat("[swiglu] gu is ", gu.text(), ": gate and up need an even number of columns"));
  }
  Tensor y(stream.device(), {gu.rows(), gu.columns() / 2}, gu.dtype());
  on(stream, name, forward_cpu, nullptr, gu, y);
  saved = {.gu = gu};
  return {y};
}

Tensors<1> Swiglu::grad_input(Stream& stream, const Attributes&, const Saved& saved,
                              const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const Tensor& gu = saved.gu;
  check_tensor(name, "dy", dy[0], {gu.rows(), gu.columns() / 2}, gu.dtype());
  Tensor dgu(stream.device(), gu.shape(), gu.dtype());
  on(stream, name, backward_cpu, nullptr, gu, dy[0], dgu);
  return {dgu};
}

}  // namespace shoestring
#endif  // HWY_ONCE
