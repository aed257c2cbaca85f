#include "core/ops/add_bias.h"

#include <algorithm>

#include "core/ops/column_sums.h"
#include "core/parallel_for.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/add_bias.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void add_rows(const Tensor& x, const Tensor& bias, const Tensor& y, int64_t begin,
                         int64_t end) {
  const int64_t width = y.columns();
  const T* b = bias.data<T>();
  for (int64_t row = begin; row < end; ++row) {
    const T* from = x.data<T>() + row * width;
    T* to = y.data<T>() + row * width;
    for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
      store(hn::Add(load(from + i, lanes), load(b + i, lanes)), to + i, lanes);
    });
  }
}

// sums [width] = sum of rows [begin, end)
template <class T>
HWY_INLINE void sum_rows(const Tensor& dy, float* sums, int64_t begin, int64_t end) {
  const int64_t width = dy.columns();
  std::fill(sums, sums + width, 0.0f);
  for (int64_t row = begin; row < end; ++row) {
    const T* from = dy.data<T>() + row * width;
    for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
      store(hn::Add(load(sums + i, lanes), load(from + i, lanes)), sums + i, lanes);
    });
  }
}

void add_f32(const Tensor& x, const Tensor& bias, const Tensor& y, int64_t begin, int64_t end) {
  add_rows<float>(x, bias, y, begin, end);
}
void add_bf16(const Tensor& x, const Tensor& bias, const Tensor& y, int64_t begin, int64_t end) {
  add_rows<BFloat16>(x, bias, y, begin, end);
}
void sum_f32(const Tensor& dy, float* sums, int64_t begin, int64_t end) {
  sum_rows<float>(dy, sums, begin, end);
}
void sum_bf16(const Tensor& dy, float* sums, int64_t begin, int64_t end) {
  sum_rows<BFloat16>(dy, sums, begin, end);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(add_f32);
HWY_EXPORT(add_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);

void add_f64(const Tensor& x, const Tensor& bias, const Tensor& y, int64_t begin, int64_t end) {
  const int64_t width = y.columns();
  for (int64_t i = begin * width; i < end * width; ++i) {
    y.data<double>()[i] = x.data<double>()[i] + bias.data<double>()[i % width];
  }
}

void forward_cpu(Stream& stream, const Tensor& input, const Tensor& addend, const Tensor& output) {
  stream.run([&device = stream.device(), x = input, bias = addend, y = output] {
    parallel_for(device, y.rows(), rows_a_range(y.columns()), [&](int64_t begin, int64_t end) {
      if (y.dtype() == Dtype::bf16) return HWY_DYNAMIC_DISPATCH(add_bf16)(x, bias, y, begin, end);
      if (y.dtype() == Dtype::f32) return HWY_DYNAMIC_DISPATCH(add_f32)(x, bias, y, begin, end);
      add_f64(x, bias, y, begin, end);
    });
  });
}

void sum_f64(const Tensor& dy, double* sums, int64_t begin, int64_t end) {
  const int64_t width = dy.columns();
  std::fill(sums, sums + width, 0.0);
  for (int64_t i = begin * width; i < end * width; ++i) sums[i % width] += dy.data<double>()[i];
}

void backward_cpu(Stream& stream, const Tensor& gradient, const Tensor& sums) {
  stream.run([&device = stream.device(), dy = gradient, dbias = sums] {
    const int64_t rows = dy.rows(), width = dy.columns();
    const int64_t block = column_sum_block(rows), blocks = column_sum_blocks(rows);
    const Dtype dtype = dy.dtype();
    Tensor partials(device, {blocks, width}, dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32,
                    MemoryKind::workspace);
    parallel_for(device, blocks, rows_a_range(block * width), [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        const int64_t begin = b * block, end = std::min(begin + block, rows);
        if (dtype == Dtype::f64) {
          sum_f64(dy, partials.data<double>() + b * width, begin, end);
          continue;
        }
        float* sums = partials.data<float>() + b * width;
        if (dtype == Dtype::bf16) {
          HWY_DYNAMIC_DISPATCH(sum_bf16)(dy, sums, begin, end);
        } else {
          HWY_DYNAMIC_DISPATCH(sum_f32)(dy, sums, begin, end);
        }
      }
    });
    add_column_sums(device, partials, dbias);
  });
}

}  // namespace

Tensors<1> AddBias::forward(Stream& stream, const Attributes&, const Tensors<1>& x,
                            const Tensors<1>& bias, Saved&) {
  check_tensor(name, "bias", bias[0], {x[0].columns()}, x[0].dtype());
  Tensor y(stream.device(), x[0].shape(), x[0].dtype());
  on(stream, name, forward_cpu, nullptr, x[0], bias[0], y);
  return {y};
}

Tensors<1> AddBias::grad_input(Stream& stream, const Attributes&, const Saved&,
                               const Tensors<1>& bias, const Tensors<1>& dy,
                               const Tensors<1>& dbias) {
  if (!dy[0]) return {};
  check_tensor(name, "dy", dy[0], {dy[0].rows(), bias[0].elements()}, bias[0].dtype());
  on(stream, name, backward_cpu, nullptr, dy[0], dbias[0]);
  return dy;
}

}  // namespace shoestring
#endif  // HWY_ONCE
