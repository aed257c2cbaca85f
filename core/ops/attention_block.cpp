#include "core/ops/attention_block.h"

#include <cmath>
#include <type_traits>
#include <vector>

#include "core/check.h"
#include "core/ops/attention_blocks.h"
#include "core/ops/attention_reference.h"
#include "core/text.h"

namespace shoestring {
namespace {

using attention::ReferenceRow;

Attention::Attributes attributes_of(const AttentionBlock& a) {
  return {.batch = a.batch,
          .length = a.queries,
          .q_heads = a.q_heads,
          .kv_heads = a.kv_heads,
          .head_dim = a.head_dim,
          .v_head_dim = a.v_head_dim,
          .scale = a.scale};
}

void check_sizes(const AttentionBlock& a) {
  if (a.batch < 1 || a.queries < 1 || a.keys < 1 || a.kv_heads < 1 || a.q_heads < 1 ||
      a.head_dim < 1 || a.v_head_dim < 1 || a.q_heads % a.kv_heads != 0 || !(a.scale > 0)) {
    fail(cat("[attention_block] sizes must be positive and q_heads a multiple of kv_heads: batch ",
             a.batch, ", queries ", a.queries, ", keys ", a.keys, ", q_heads ", a.q_heads,
             ", kv_heads ", a.kv_heads, ", head_dim ", a.head_dim, ", v_head_dim ", a.v_head_dim,
             ", scale ", a.scale));
  }
}

void check_operands(const AttentionBlock& a, const BlockOperands& x) {
  check_sizes(a);
  const Dtype dtype = x.q ? x.q.dtype() : Dtype::f32;
  check_tensor(a.name, "q", x.q, a.q_shape(), dtype);
  check_tensor(a.name, "k", x.k, a.k_shape(), dtype);
  check_tensor(a.name, "v", x.v, a.v_shape(), dtype);
  check_tensor(a.name, "low", x.low, {a.batch, a.queries}, Dtype::i32);
  check_tensor(a.name, "high", x.high, {a.batch, a.queries}, Dtype::i32);
}

// Blocks of scores are skipped by the borders of their first and last rows.
void check_borders(const AttentionBlock& a, const BlockOperands& x) {
  const int32_t* low = x.low.data<int32_t>();
  const int32_t* high = x.high.data<int32_t>();
  for (int64_t b = 0; b < a.batch; ++b, low += a.queries, high += a.queries) {
    for (int64_t t = 0; t < a.queries; ++t) {
      const bool back = t > 0 && (low[t] < low[t - 1] || high[t] < high[t - 1]);
      if (back || low[t] < 0 || low[t] > high[t] || high[t] > a.keys) {
        fail(cat("[attention_block] query ", t, " of row ", b, " sees keys ", low[t], " to ",
                 high[t], " of ", a.keys, back ? ", but the query before it sees later ones" : ""));
      }
    }
  }
}

// Calls f(row) for every query that sees a key.
template <class F>
void for_rows(const AttentionBlock& a, const BlockOperands& x, F&& f) {
  const Attention::Attributes attributes = attributes_of(a);
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t head = 0; head < a.q_heads; ++head) {
      for (int64_t t = 0; t < a.queries; ++t) {
        ReferenceRow row(attributes, b * a.keys, b, head, t);
        row.low = x.low.data<int32_t>()[b * a.queries + t];
        row.high = x.high.data<int32_t>()[b * a.queries + t];
        if (row.low < row.high) f(row);
      }
    }
  }
}

void merge_reference(const AttentionBlock& a, const BlockOperands& x, double* o,
                     double* log_sum_exp) {
  std::vector<double> weights(static_cast<size_t>(a.keys));
  std::vector<double> block(static_cast<size_t>(a.v_head_dim));
  const attention::ReferenceForward<double> arrays{.q = x.q.data<double>(),
                                                   .k = x.k.data<double>(),
                                                   .v = x.v.data<double>(),
                                                   .first_key = nullptr,
                                                   .o = block.data(),
                                                   .log_sum_exp = nullptr};
  for_rows(a, x, [&](ReferenceRow row) {
    double* const to = o + row.o;
    row.o = 0;
    const double found = attention::reference_row_forward(attributes_of(a), arrays, row, weights);
    double& before = log_sum_exp[row.log_sum_exp];
    const double apart = std::exp(-std::abs(found - before));
    const double share = (found > before ? 1 : apart) / (1 + apart);
    before = std::max(found, before) + std::log1p(apart);
    for (size_t i = 0; i < block.size(); ++i) to[i] += share * (block[i] - to[i]);
  });
}

void add_reference(const AttentionBlock& a, const BlockOperands& x, const BlockGradients& g) {
  const attention::ReferenceBackward<double> arrays{.q = x.q.data<double>(),
                                                    .k = x.k.data<double>(),
                                                    .v = x.v.data<double>(),
                                                    .o = g.o.data<double>(),
                                                    .log_sum_exp = g.log_sum_exp.data<double>(),
                                                    .dy = g.dy.data<double>(),
                                                    .first_key = nullptr,
                                                    .dq = g.dq.data<double>(),
                                                    .dk = g.dk.data<double>(),
                                                    .dv = g.dv.data<double>()};
  for_rows(a, x, [&](const ReferenceRow& row) {
    attention::reference_row_backward(attributes_of(a), arrays, row);
  });
}

template <class T>
void merge_as(Device& device, const AttentionBlock& a, const BlockOperands& x, const Tensor& o,
              const Tensor& log_sum_exp) {
  if constexpr (std::is_same_v<T, double>) {
    merge_reference(a, x, o.data<double>(), log_sum_exp.data<double>());
  } else {
    attention::forward_blocks<T>(device, attributes_of(a),
                                 {.q = x.q.data<T>(),
                                  .k = x.k.data<T>(),
                                  .v = x.v.data<T>(),
                                  .first_key = x.low.data<int32_t>(),
                                  .o = nullptr,
                                  .log_sum_exp = log_sum_exp.data<float>(),
                                  .other = {.keys = a.keys, .end_key = x.high.data<int32_t>()},
                                  .merged = o.data<float>()});
  }
}

template <class T>
void add_as(Device& device, const AttentionBlock& a, const BlockOperands& x,
            const BlockGradients& g) {
  if constexpr (std::is_same_v<T, double>) {
    add_reference(a, x, g);
  } else {
    attention::backward_blocks<T>(device, attributes_of(a),
                                  {.q = x.q.data<T>(),
                                   .k = x.k.data<T>(),
                                   .v = x.v.data<T>(),
                                   .o = g.o.data<T>(),
                                   .dy = g.dy.data<T>(),
                                   .first_key = x.low.data<int32_t>(),
                                   .log_sum_exp = g.log_sum_exp.data<float>(),
                                   .dq = nullptr,
                                   .dk = nullptr,
                                   .dv = nullptr,
                                   .other = {.keys = a.keys, .end_key = x.high.data<int32_t>()},
                                   .dq_sum = g.dq.data<float>(),
                                   .dk_sum = g.dk.data<float>(),
                                   .dv_sum = g.dv.data<float>()});
  }
}

struct Merged {
  Tensor o, log_sum_exp;
};

void merge_cpu(Stream& stream, const AttentionBlock& a, const BlockOperands& x, const Merged& to) {
  stream.run([a, x, to, &device = stream.device()] {
    check_borders(a, x);
    dispatch_float(x.q.dtype(),
                   [&]<class T>() { merge_as<T>(device, a, x, to.o, to.log_sum_exp); });
  });
}

void add_cpu(Stream& stream, const AttentionBlock& a, const BlockOperands& x,
             const BlockGradients& g) {
  stream.run([a, x, g, &device = stream.device()] {
    dispatch_float(x.q.dtype(), [&]<class T>() { add_as<T>(device, a, x, g); });
  });
}

// No other device has kernels.
constexpr decltype(&merge_cpu) no_merge = nullptr;
constexpr decltype(&add_cpu) no_add = nullptr;

}  // namespace

void merge_attention_block(Stream& stream, const AttentionBlock& a, const BlockOperands& x,
                           const Tensor& o, const Tensor& log_sum_exp) {
  check_operands(a, x);
  const Dtype sums = AttentionBlock::sum_type(x.q.dtype());
  check_tensor(a.name, "o", o, a.o_shape(), sums);
  check_tensor(a.name, "log_sum_exp", log_sum_exp, a.log_sum_exp_shape(), sums);
  on(stream, a.name, merge_cpu, no_merge, a, x, Merged{o, log_sum_exp});
}

void add_attention_block_gradients(Stream& stream, const AttentionBlock& a, const BlockOperands& x,
                                   const BlockGradients& g) {
  check_operands(a, x);
  const Dtype dtype = x.q.dtype(), sums = AttentionBlock::sum_type(dtype);
  check_tensor(a.name, "o", g.o, a.o_shape(), dtype);
  check_tensor(a.name, "dy", g.dy, a.o_shape(), dtype);
  check_tensor(a.name, "log_sum_exp", g.log_sum_exp, a.log_sum_exp_shape(), sums);
  check_tensor(a.name, "dq", g.dq, a.q_shape(), sums);
  check_tensor(a.name, "dk", g.dk, a.k_shape(), sums);
  check_tensor(a.name, "dv", g.dv, a.v_shape(), sums);
  on(stream, a.name, add_cpu, no_add, a, x, g);
}

}  // namespace shoestring
