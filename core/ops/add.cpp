#include "core/ops/add.h"

#include "core/parallel_for.h"

namespace shoestring {
namespace {

constexpr int64_t grain = int64_t{1} << 14;

template <class T>
void add_cpu(Device& device, const Tensor& x, const Tensor& delta, double multiplier,
             const Tensor& y) {
  using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const T* a = x.data<T>();
  const T* b = delta.data<T>();
  T* out = y.data<T>();
  const auto m = static_cast<Arithmetic>(multiplier);
  parallel_for(device, x.elements(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = T(static_cast<Arithmetic>(a[i]) + m * static_cast<Arithmetic>(b[i]));
    }
  });
}

template <class T>
void multiply_cpu(Device& device, const Tensor& x, double multiplier, const Tensor& y) {
  using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const T* in = x.data<T>();
  T* out = y.data<T>();
  const auto m = static_cast<Arithmetic>(multiplier);
  parallel_for(device, x.elements(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = T(m * static_cast<Arithmetic>(in[i]));
  });
}

void forward_cpu(Stream& stream, const Tensor& x, const Tensor& delta, double multiplier,
                 const Tensor& y) {
  stream.run([&device = stream.device(), x, delta, multiplier, y] {
    dispatch_float(x.dtype(), [&]<class T>() { add_cpu<T>(device, x, delta, multiplier, y); });
  });
}

void backward_cpu(Stream& stream, const Tensor& dy, double multiplier, const Tensor& ddelta) {
  stream.run([&device = stream.device(), dy, multiplier, ddelta] {
    dispatch_float(dy.dtype(), [&]<class T>() { multiply_cpu<T>(device, dy, multiplier, ddelta); });
  });
}

}  // namespace

Tensors<1> Add::forward(Stream& stream, const Attributes& a, const Tensors<2>& x, Saved&) {
  check_tensor(name, "delta", x[1], x[0].shape(), x[0].dtype());
  Tensor y(stream.device(), x[0].shape(), x[0].dtype());
  on<const Tensor&, const Tensor&, double, const Tensor&>(stream, name, forward_cpu, nullptr, x[0],
                                                          x[1], a.multiplier, y);
  return {y};
}

Tensors<2> Add::grad_input(Stream& stream, const Attributes& a, const Saved&,
                           const Tensors<1>& dy) {
  if (a.multiplier == 1) return {dy[0], dy[0]};
  Tensor ddelta(stream.device(), dy[0].shape(), dy[0].dtype());
  on<const Tensor&, double, const Tensor&>(stream, name, backward_cpu, nullptr, dy[0], a.multiplier,
                                           ddelta);
  return {dy[0], ddelta};
}

}  // namespace shoestring
