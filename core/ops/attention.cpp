#include "core/ops/attention.h"

#include "core/check.h"
#include "core/ops/attention_blocks.h"
#include "core/ops/attention_reference.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Attributes = Attention::Attributes;

void check_attributes(const Attributes& a) {
  if (a.batch < 1 || a.length < 1 || a.kv_heads < 1 || a.q_heads < 1 || a.head_dim < 1 ||
      a.v_head_dim < 1 || a.window < 0) {
    fail(cat("[attention] sizes must be positive but are: batch ", a.batch, ", length ", a.length,
             ", q_heads ", a.q_heads, ", kv_heads ", a.kv_heads, ", head_dim ", a.head_dim,
             ", v_head_dim ", a.v_head_dim, ", window ", a.window));
  }
  if (a.q_heads % a.kv_heads != 0) {
    fail(cat("[attention] q_heads ", a.q_heads, " must be a multiple of kv_heads ", a.kv_heads));
  }
  if (!(a.scale > 0)) fail(cat("[attention] scale must be positive but is ", a.scale));
}

// Blocks are skipped by the borders of the rows, so these must not go back.
void check_first_key(const Attributes& a, const Tensor& first_key) {
  const int32_t* columns = first_key.data<int32_t>();
  for (int64_t b = 0; b < a.batch; ++b, columns += a.length) {
    for (int64_t t = 0; t < a.length; ++t) {
      const int32_t before = t == 0 ? 0 : columns[t - 1];
      if (columns[t] < before || columns[t] > t) {
        fail(cat("[attention] first_key of row ", b, ", token ", t, " is ", columns[t],
                 "; it must lie in ", before, "..", t));
      }
    }
  }
}

Shape q_shape(const Attributes& a) { return {a.batch * a.length, a.q_heads * a.head_dim}; }
Shape k_shape(const Attributes& a) { return {a.batch * a.length, a.kv_heads * a.head_dim}; }
Shape v_shape(const Attributes& a) { return {a.batch * a.length, a.kv_heads * a.v_head_dim}; }
Shape o_shape(const Attributes& a) { return {a.batch * a.length, a.q_heads * a.v_head_dim}; }

template <class T>
void forward_as(Device& device, const Attributes& a, const Attention::Saved& s) {
  const auto* first_key = s.first_key.data<int32_t>();
  if constexpr (std::is_same_v<T, double>) {
    attention::reference_forward<double>(a, {.q = s.q.data<T>(),
                                             .k = s.k.data<T>(),
                                             .v = s.v.data<T>(),
                                             .first_key = first_key,
                                             .o = s.o.data<T>(),
                                             .log_sum_exp = s.log_sum_exp.data<T>()});
  } else {
    attention::forward_blocks<T>(device, a,
                                 {.q = s.q.data<T>(),
                                  .k = s.k.data<T>(),
                                  .v = s.v.data<T>(),
                                  .first_key = first_key,
                                  .o = s.o.data<T>(),
                                  .log_sum_exp = s.log_sum_exp.data<float>()});
  }
}

void forward_cpu(Stream& stream, const Attributes& a, const Attention::Saved& s) {
  stream.run([a, s, &device = stream.device()] {
    check_first_key(a, s.first_key);
    dispatch_float(s.q.dtype(), [&]<class T>() { forward_as<T>(device, a, s); });
  });
}

struct Gradients {
  Tensor dy, dq, dk, dv;
};

template <class T>
void backward_as(Device& device, const Attributes& a, const Attention::Saved& s,
                 const Gradients& g) {
  const auto* first_key = s.first_key.data<int32_t>();
  if constexpr (std::is_same_v<T, double>) {
    attention::reference_backward<double>(a, {.q = s.q.data<T>(),
                                              .k = s.k.data<T>(),
                                              .v = s.v.data<T>(),
                                              .o = s.o.data<T>(),
                                              .log_sum_exp = s.log_sum_exp.data<T>(),
                                              .dy = g.dy.data<T>(),
                                              .first_key = first_key,
                                              .dq = g.dq.data<T>(),
                                              .dk = g.dk.data<T>(),
                                              .dv = g.dv.data<T>()});
  } else {
    attention::backward_blocks<T>(device, a,
                                  {.q = s.q.data<T>(),
                                   .k = s.k.data<T>(),
                                   .v = s.v.data<T>(),
                                   .o = s.o.data<T>(),
                                   .dy = g.dy.data<T>(),
                                   .first_key = first_key,
                                   .log_sum_exp = s.log_sum_exp.data<float>(),
                                   .dq = g.dq.data<T>(),
                                   .dk = g.dk.data<T>(),
                                   .dv = g.dv.data<T>()});
  }
}

void backward_cpu(Stream& stream, const Attributes& a, const Attention::Saved& s,
                  const Gradients& g) {
  stream.run([a, s, g, &device = stream.device()] {
    dispatch_float(s.q.dtype(), [&]<class T>() { backward_as<T>(device, a, s, g); });
  });
}

// No other device has kernels.
constexpr decltype(&forward_cpu) no_forward = nullptr;
constexpr decltype(&backward_cpu) no_backward = nullptr;

}  // namespace

Tensors<1> Attention::forward(Stream& stream, const Attributes& a, const Tensors<4>& x,
                              Saved& saved) {
  check_attributes(a);
  const auto& [q, k, v, first_key] = x;
  const Dtype dtype = q ? q.dtype() : Dtype::f32;
  check_tensor(name, "q", q, q_shape(a), dtype);
  check_tensor(name, "k", k, k_shape(a), dtype);
  check_tensor(name, "v", v, v_shape(a), dtype);
  check_tensor(name, "first_key", first_key, {a.batch, a.length}, Dtype::i32);
  Device& device = stream.device();
  saved = {.q = q,
           .k = k,
           .v = v,
           .first_key = first_key,
           .o = Tensor(device, o_shape(a), dtype),
           .log_sum_exp = Tensor(device, {a.batch, a.q_heads, a.length},
                                 dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32)};
  on(stream, name, forward_cpu, no_forward, a, saved);
  return {saved.o};
}

Tensors<4> Attention::grad_input(Stream& stream, const Attributes& a, const Saved& saved,
                                 const Tensors<1>& dy) {
  if (!dy[0]) return {};
  check_tensor(name, "dy", dy[0], o_shape(a), saved.q.dtype());
  Device& device = stream.device();
  const Dtype dtype = saved.q.dtype();
  const Gradients gradients = {.dy = dy[0],
                               .dq = Tensor(device, q_shape(a), dtype),
                               .dk = Tensor(device, k_shape(a), dtype),
                               .dv = Tensor(device, v_shape(a), dtype)};
  on(stream, name, backward_cpu, no_backward, a, saved, gradients);
  return {gradients.dq, gradients.dk, gradients.dv, Tensor()};
}

}  // namespace shoestring
