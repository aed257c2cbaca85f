#pragma once
// The double twin's answer to an attention problem, with a bound of the rounding error for every
// element.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/ops/attention_reference.h"
#include "tests/core/ops/attention_case.h"

namespace shoestring::attention {

// The double twin on the same (already rounded) values.
struct AttentionOracle {
  std::vector<double> q, k, v, dy, o, log_sum_exp, dq, dk, dv;

  template <class T>
  AttentionOracle(const AttentionCase& c, const AttentionValues<T>& x)
      : q(doubles(x.q)),
        k(doubles(x.k)),
        v(doubles(x.v)),
        dy(doubles(x.dy)),
        o(x.dy.size()),
        log_sum_exp(
            static_cast<size_t>(c.attributes.batch * c.attributes.q_heads * c.attributes.length)),
        dq(x.q.size()),
        dk(x.k.size()),
        dv(x.v.size()) {
    reference_forward<double>(c.attributes, {.q = q.data(),
                                             .k = k.data(),
                                             .v = v.data(),
                                             .first_key = c.first_key.data(),
                                             .o = o.data(),
                                             .log_sum_exp = log_sum_exp.data()});
    reference_backward<double>(c.attributes, {.q = q.data(),
                                              .k = k.data(),
                                              .v = v.data(),
                                              .o = o.data(),
                                              .log_sum_exp = log_sum_exp.data(),
                                              .dy = dy.data(),
                                              .first_key = c.first_key.data(),
                                              .dq = dq.data(),
                                              .dk = dk.data(),
                                              .dv = dv.data()});
  }
  template <class T>
  static std::vector<double> doubles(const std::vector<T>& x) {
    std::vector<double> result;
    for (const T& value : x) result.push_back(static_cast<double>(static_cast<float>(value)));
    return result;
  }
};

// Rounding error that each element may have, to first order, times 2. u = 2^-24 for sums; t is the
// rounding of stored values and of weights where products take bf16. A score is a sum of hd terms,
// so its error is at most hd u |q| |k| scale, which is the relative error of its weight; the
// exponential adds a few u times the score's size; sums over the row add S u.
struct AttentionBounds {
  std::vector<double> o, log_sum_exp, dq, dk, dv;

  AttentionBounds(const AttentionCase& c, const AttentionOracle& x, double t)
      : o(stored(x.o, t)),
        log_sum_exp(x.log_sum_exp.size()),
        dq(stored(x.dq, t)),
        dk(stored(x.dk, t)),
        dv(stored(x.dv, t)) {
    for_reference_rows(c.attributes, c.first_key.data(),
                       [&](const ReferenceRow& row) { add_row(c.attributes, x, row, t); });
  }

 private:
  static std::vector<double> stored(const std::vector<double>& x, double t) {
    std::vector<double> result;
    for (double value : x) result.push_back(2 * t * std::abs(value) + 1e-30);
    return result;
  }
  void add_row(const Attention::Attributes& a, const AttentionOracle& x, const ReferenceRow& row,
               double t) {
    const double u = std::ldexp(1.0, -24);
    const auto norm = [](const double* y, int64_t n) { return std::sqrt(reference_dot(y, y, n)); };
    const double q = norm(&x.q[row.q], a.head_dim), dy = norm(&x.dy[row.o], a.v_head_dim);
    const double out = norm(&x.o[row.o], a.v_head_dim);
    const double log_sum = x.log_sum_exp[row.log_sum_exp];
    const double terms = static_cast<double>(a.length * a.q_heads / a.kv_heads);
    double largest = 0;  // error of a score
    for (int64_t col = row.low; col < row.high; ++col) {
      const double k = norm(&x.k[row.k + col * row.k_stride], a.head_dim);
      largest = std::max(largest, u * (static_cast<double>(a.head_dim) + 4) * a.scale * q * k);
    }
    log_sum_exp[row.log_sum_exp] =
        2 * (largest + u * (terms + 8 + 4 * std::abs(log_sum)) + (t > 1e-6 ? 1e-5 : 0));
    const double e = 2 * (2 * largest + u * (terms + 16 + 4 * std::abs(log_sum)) + 3 * t);
    for (int64_t col = row.low; col < row.high; ++col) {
      const int64_t k = row.k + col * row.k_stride, v = row.v + col * row.v_stride;
      const double score = a.scale * reference_dot(&x.q[row.q], &x.k[k], a.head_dim);
      const double weight = std::exp(score - log_sum);
      const double d_score = weight * dy * (norm(&x.v[v], a.v_head_dim) + out) *
                             (e + 2 * u * static_cast<double>(a.v_head_dim)) * a.scale;
      for (int64_t i = 0; i < a.v_head_dim; ++i) {
        o[row.o + i] += e * weight * std::abs(x.v[v + i]);
        dv[v + i] += e * weight * std::abs(x.dy[row.o + i]);
      }
      for (int64_t i = 0; i < a.head_dim; ++i) {
        dq[row.q + i] += d_score * std::abs(x.k[k + i]);
        dk[k + i] += d_score * std::abs(x.q[row.q + i]);
      }
    }
  }
};

// Fails with the first element that is off by more than its bound.
template <class T>
void expect_within(std::string_view what, const std::vector<T>& got,
                   const std::vector<double>& want, const std::vector<double>& bound) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = static_cast<double>(static_cast<float>(got[i]));
    ASSERT_LE(std::abs(value - want[i]), bound[i])
        << what << "[" << i << "] is " << value << " but should be " << want[i];
  }
}

}  // namespace shoestring::attention
