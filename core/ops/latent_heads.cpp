#include "core/ops/latent_heads.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/latent_heads.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// to [width] = sum of `count` pieces of a row, `stride` elements apart, in their order.
template <class T>
HWY_INLINE void sum_pieces(const T* from, int64_t count, int64_t stride, int64_t width, T* to) {
  for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
    Floats sums = load(from + i, lanes);
    for (int64_t h = 1; h < count; ++h) sums = hn::Add(sums, load(from + h * stride + i, lanes));
    store(sums, to + i, lanes);
  });
}

void sum_f32(const float* from, int64_t count, int64_t stride, int64_t width, float* to) {
  sum_pieces(from, count, stride, width, to);
}
void sum_bf16(const BFloat16* from, int64_t count, int64_t stride, int64_t width, BFloat16* to) {
  sum_pieces(from, count, stride, width, to);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);

// Gradients may be missing; `up` and `key` are written when they are.
struct Work {
  LatentHeads::Attributes a;
  Tensor up, key, k, v;
  size_t size() const { return size_of(up.dtype()); }
};

// Row `row` of a tensor, from column `column` on.
std::byte* at(const Tensor& t, int64_t row, int64_t column) {
  return t.raw() + static_cast<size_t>(row * t.columns() + column) * size_of(t.dtype());
}

void assemble_row(const Work& w, int64_t row) {
  const LatentHeads::Attributes& a = w.a;
  const auto bytes = [&](int64_t n) { return static_cast<size_t>(n) * w.size(); };
  const std::byte* key = at(w.key, row, 0);
  for (int64_t h = 0; h < a.heads; ++h) {
    const std::byte* up = at(w.up, row, h * (a.nope + a.value));
    std::byte* k = at(w.k, row, h * a.qk());
    std::memcpy(k, up, bytes(a.nope));
    std::memcpy(k + bytes(a.nope), key, bytes(a.rope));
    std::memcpy(at(w.v, row, h * a.value), up + bytes(a.nope), bytes(a.value));
  }
}

void sum_key_row(const Work& w, int64_t row) {
  const LatentHeads::Attributes& a = w.a;
  if (w.key.dtype() == Dtype::f32) {
    HWY_DYNAMIC_DISPATCH(sum_f32)
    (w.k.data<float>() + row * w.k.columns() + a.nope, a.heads, a.qk(), a.rope,
     w.key.data<float>() + row * a.rope);
  } else if (w.key.dtype() == Dtype::bf16) {
    HWY_DYNAMIC_DISPATCH(sum_bf16)
    (w.k.data<BFloat16>() + row * w.k.columns() + a.nope, a.heads, a.qk(), a.rope,
     w.key.data<BFloat16>() + row * a.rope);
  } else {
    for (int64_t i = 0; i < a.rope; ++i) {
      const double* from = w.k.data<double>() + row * w.k.columns() + a.nope + i;
      double sum = 0;
      for (int64_t h = 0; h < a.heads; ++h) sum += from[h * a.qk()];
      w.key.data<double>()[row * a.rope + i] = sum;
    }
  }
}

void gather_row(const Work& w, int64_t row) {
  const LatentHeads::Attributes& a = w.a;
  const auto move = [&](std::byte* to, const Tensor& from, int64_t column, int64_t n) {
    const size_t bytes = static_cast<size_t>(n) * w.size();
    from ? std::memcpy(to, at(from, row, column), bytes) : std::memset(to, 0, bytes);
  };
  for (int64_t h = 0; h < a.heads; ++h) {
    std::byte* up = at(w.up, row, h * (a.nope + a.value));
    move(up, w.k, h * a.qk(), a.nope);
    move(up + static_cast<size_t>(a.nope) * w.size(), w.v, h * a.value, a.value);
  }
  if (w.k) {
    sum_key_row(w, row);
  } else {
    std::memset(at(w.key, row, 0), 0, static_cast<size_t>(a.rope) * w.size());
  }
}

template <void (*row_kernel)(const Work&, int64_t)>
void rows_cpu(Stream& stream, const Work& arguments) {
  stream.run([&device = stream.device(), w = arguments] {
    parallel_for(device, w.up.rows(), rows_a_range(w.up.columns()),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) row_kernel(w, row);
                 });
  });
}

Shape up_shape(const LatentHeads::Attributes& a, int64_t rows) {
  return {rows, a.heads * (a.nope + a.value)};
}

}  // namespace

Tensors<2> LatentHeads::forward(Stream& stream, const Attributes& a, const Tensors<2>& inputs,
                                Saved&) {
  const auto& [up, key] = inputs;
  const int64_t rows = up.rows();
  check_tensor(name, "up", up, up_shape(a, rows), up.dtype());
  check_tensor(name, "key", key, {rows, a.rope}, up.dtype());
  const Work work{.a = a,
                  .up = up,
                  .key = key,
                  .k = Tensor(stream.device(), {rows, a.heads * a.qk()}, up.dtype()),
                  .v = Tensor(stream.device(), {rows, a.heads * a.value}, up.dtype())};
  on(stream, name, rows_cpu<assemble_row>, nullptr, work);
  return {work.k, work.v};
}

Tensors<2> LatentHeads::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                   const Tensors<2>& dy) {
  const auto& [dk, dv] = dy;
  if (!dk && !dv) return {};
  const Tensor& any = dk ? dk : dv;
  const int64_t rows = any.rows();
  if (dk) check_tensor(name, "dk", dk, {rows, a.heads * a.qk()}, any.dtype());
  if (dv) check_tensor(name, "dv", dv, {rows, a.heads * a.value}, any.dtype());
  const Work work{.a = a,
                  .up = Tensor(stream.device(), up_shape(a, rows), any.dtype()),
                  .key = Tensor(stream.device(), {rows, a.rope}, any.dtype()),
                  .k = dk,
                  .v = dv};
  on(stream, name, rows_cpu<gather_row>, nullptr, work);
  return {work.up, work.key};
}

}  // namespace shoestring
#endif  // HWY_ONCE
