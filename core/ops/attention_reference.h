#pragma once
// Attention's slow twin: one row of scores at a time, in plain loops. A template on the scalar:
// double is the oracle of the tests and the op's f64 kernel, std::complex<double> differentiates
// the forward pass by complex steps. Shapes and meaning as in core/ops/attention.h.

#include <algorithm>
#include <complex>
#include <cstdint>
#include <vector>

#include "core/ops/attention.h"

namespace shoestring::attention {

template <class T>
struct ReferenceForward {
  const T *q, *k, *v;
  const int32_t* first_key;
  T *o, *log_sum_exp;
};
template <class T>
struct ReferenceBackward {
  const T *q, *k, *v, *o, *log_sum_exp, *dy;
  const int32_t* first_key;
  T *dq, *dk, *dv;  // overwritten
};

// Where one query row's pieces lie.
struct ReferenceRow {
  int64_t low, high;          // columns seen
  int64_t q, o, log_sum_exp;  // offsets of the query's row in q, o and log_sum_exp
  int64_t k, v;               // offsets of column 0's row in k and v
  int64_t k_stride, v_stride;
  ReferenceRow(const Attention::Attributes& a, const int32_t* first_key, int64_t b, int64_t head,
               int64_t t)
      : ReferenceRow(a, b * a.length, b, head, t) {
    low = first_key[b * a.length + t];
    high = t + 1;
    if (a.window > 0) low = std::max(low, t - a.window + 1);
  }
  // Keys whose first row lies at `column`; who calls fills low and high.
  ReferenceRow(const Attention::Attributes& a, int64_t column, int64_t b, int64_t head, int64_t t)
      : low(0), high(0) {
    const int64_t kv_head = head / (a.q_heads / a.kv_heads);
    const int64_t token = b * a.length + t;
    q = (token * a.q_heads + head) * a.head_dim;
    o = (token * a.q_heads + head) * a.v_head_dim;
    log_sum_exp = (b * a.q_heads + head) * a.length + t;
    k = (column * a.kv_heads + kv_head) * a.head_dim;
    v = (column * a.kv_heads + kv_head) * a.v_head_dim;
    k_stride = a.kv_heads * a.head_dim;
    v_stride = a.kv_heads * a.v_head_dim;
  }
};

// Calls f(row) for every batch row, head and token.
template <class F>
void for_reference_rows(const Attention::Attributes& a, const int32_t* first_key, F&& f) {
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t head = 0; head < a.q_heads; ++head) {
      for (int64_t t = 0; t < a.length; ++t) f(ReferenceRow(a, first_key, b, head, t));
    }
  }
}

template <class T>
T reference_dot(const T* x, const T* y, int64_t n) {
  T sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// One row's softmax over row.low <= u < row.high, not empty: writes x.o at row.o and returns the
// log-sum-exp. weights: as many as there are columns.
template <class T>
T reference_row_forward(const Attention::Attributes& a, const ReferenceForward<T>& x,
                        const ReferenceRow& row, std::vector<T>& weights) {
  double maximum = -std::numeric_limits<double>::infinity();
  for (int64_t u = row.low; u < row.high; ++u) {
    const T dot = reference_dot(x.q + row.q, x.k + row.k + u * row.k_stride, a.head_dim);
    weights[u] = a.scale * dot;
    maximum = std::max(maximum, std::real(weights[u]));
  }
  T sum = 0;
  for (int64_t u = row.low; u < row.high; ++u) sum += weights[u] = std::exp(weights[u] - maximum);
  std::fill_n(x.o + row.o, a.v_head_dim, T(0));
  for (int64_t u = row.low; u < row.high; ++u) {
    const T weight = weights[u] / sum;
    const T* v = x.v + row.v + u * row.v_stride;
    for (int64_t i = 0; i < a.v_head_dim; ++i) x.o[row.o + i] += weight * v[i];
  }
  return maximum + std::log(sum);
}

template <class T>
void reference_forward(const Attention::Attributes& a, const ReferenceForward<T>& x) {
  std::vector<T> weights(static_cast<size_t>(a.length));
  for_reference_rows(a, x.first_key, [&](const ReferenceRow& row) {
    x.log_sum_exp[row.log_sum_exp] = reference_row_forward(a, x, row, weights);
  });
}

// Adds one row's part of the gradients.
template <class T>
void reference_row_backward(const Attention::Attributes& a, const ReferenceBackward<T>& x,
                            const ReferenceRow& row) {
  const T* dy = x.dy + row.o;
  const T delta = reference_dot(dy, x.o + row.o, a.v_head_dim);
  for (int64_t u = row.low; u < row.high; ++u) {
    const int64_t k = row.k + u * row.k_stride, v = row.v + u * row.v_stride;
    const T score = a.scale * reference_dot(x.q + row.q, x.k + k, a.head_dim);
    const T weight = std::exp(score - x.log_sum_exp[row.log_sum_exp]);
    const T d_score = a.scale * weight * (reference_dot(dy, x.v + v, a.v_head_dim) - delta);
    for (int64_t i = 0; i < a.v_head_dim; ++i) x.dv[v + i] += weight * dy[i];
    for (int64_t i = 0; i < a.head_dim; ++i) {
      x.dq[row.q + i] += d_score * x.k[k + i];
      x.dk[k + i] += d_score * x.q[row.q + i];
    }
  }
}

template <class T>
void reference_backward(const Attention::Attributes& a, const ReferenceBackward<T>& x) {
  const int64_t tokens = a.batch * a.length;
  std::fill_n(x.dq, tokens * a.q_heads * a.head_dim, T(0));
  std::fill_n(x.dk, tokens * a.kv_heads * a.head_dim, T(0));
  std::fill_n(x.dv, tokens * a.kv_heads * a.v_head_dim, T(0));
  for_reference_rows(a, x.first_key,
                     [&](const ReferenceRow& row) { reference_row_backward(a, x, row); });
}

}  // namespace shoestring::attention
