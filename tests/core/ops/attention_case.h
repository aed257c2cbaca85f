#pragma once
// Random attention problems, the op run on them, and the double twin's answer with a bound of the
// rounding error for every element.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/ops/attention_reference.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring::attention {

struct AttentionCase {
  std::string name;
  Attention::Attributes attributes;
  std::vector<int32_t> first_key;
};

// Documents of about `document` tokens (0: one a row; 1: every token its own).
inline AttentionCase make_case(std::string name, Attention::Attributes a, int64_t document = 0) {
  if (a.scale == 1) a.scale = 1 / std::sqrt(static_cast<double>(a.head_dim));
  AttentionCase result{std::move(name), a, {}};
  const RandomStream random(7, "documents");
  for (int64_t b = 0; b < a.batch; ++b) {
    int64_t start = 0, left = 0;
    for (int64_t t = 0; t < a.length; ++t) {
      if (document > 0 && left == 0) {
        start = t;
        const auto at = static_cast<uint64_t>(b * a.length + t);
        left = 1 + static_cast<int64_t>(random.below(at, static_cast<uint64_t>(2 * document - 1)));
      }
      --left;
      result.first_key.push_back(static_cast<int32_t>(start));
    }
  }
  return result;
}

template <class T>
std::vector<T> random_values(std::string_view name, int64_t n, double deviation = 1) {
  const RandomStream random(11, name);
  std::vector<T> values;
  for (int64_t i = 0; i < n; ++i) {
    values.push_back(T(static_cast<float>(deviation * random.normal(static_cast<uint64_t>(i)))));
  }
  return values;
}

template <class T>
struct AttentionValues {
  std::vector<T> q, k, v, dy;
  explicit AttentionValues(const Attention::Attributes& a) {
    const int64_t tokens = a.batch * a.length;
    q = random_values<T>("q", tokens * a.q_heads * a.head_dim);
    k = random_values<T>("k", tokens * a.kv_heads * a.head_dim);
    v = random_values<T>("v", tokens * a.kv_heads * a.v_head_dim);
    dy = random_values<T>("dy", tokens * a.q_heads * a.v_head_dim);
  }
};

template <class T>
struct AttentionResult {
  std::vector<T> o, dq, dk, dv;
  std::vector<float> log_sum_exp;
};

template <class T>
std::vector<T> copy_of(const Tensor& x) {
  return {x.span<T>().begin(), x.span<T>().end()};
}

template <class T>
Tensor tensor_of(Device& device, Shape shape, const std::vector<T>& values) {
  return Tensor::from<T>(device, std::move(shape), std::span<const T>(values));
}

template <class T>
AttentionResult<T> run_attention(const AttentionCase& c, const AttentionValues<T>& x,
                                 int threads = 2) {
  const Attention::Attributes& a = c.attributes;
  Device device(DeviceKind::cpu, 0, threads);
  Stream stream = Stream::immediate(device);
  const int64_t tokens = a.batch * a.length;
  const Tensors<4> inputs = {tensor_of(device, {tokens, a.q_heads * a.head_dim}, x.q),
                             tensor_of(device, {tokens, a.kv_heads * a.head_dim}, x.k),
                             tensor_of(device, {tokens, a.kv_heads * a.v_head_dim}, x.v),
                             tensor_of(device, {a.batch, a.length}, c.first_key)};
  Attention::Saved saved;
  const Tensor o = Attention::forward(stream, a, inputs, saved)[0];
  const Tensor dy = tensor_of(device, {tokens, a.q_heads * a.v_head_dim}, x.dy);
  const Tensors<4> dx = Attention::grad_input(stream, a, saved, {dy});
  EXPECT_FALSE(dx[3]);
  AttentionResult<T> result{.o = copy_of<T>(o),
                            .dq = copy_of<T>(dx[0]),
                            .dk = copy_of<T>(dx[1]),
                            .dv = copy_of<T>(dx[2]),
                            .log_sum_exp = {}};
  if constexpr (!std::is_same_v<T, double>) {
    result.log_sum_exp = copy_of<float>(saved.log_sum_exp);
  }
  return result;
}

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

template <class T>
void expect_same_bits(std::string_view what, const std::vector<T>& x, const std::vector<T>& y) {
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(std::memcmp(&x[i], &y[i], sizeof(T)), 0)
        << what << "[" << i << "]: " << static_cast<float>(x[i]) << " and "
        << static_cast<float>(y[i]);
  }
}
template <class T>
void expect_same_bits(const AttentionResult<T>& x, const AttentionResult<T>& y) {
  expect_same_bits("o", x.o, y.o);
  expect_same_bits("log_sum_exp", x.log_sum_exp, y.log_sum_exp);
  expect_same_bits("dq", x.dq, y.dq);
  expect_same_bits("dk", x.dk, y.dk);
  expect_same_bits("dv", x.dv, y.dv);
}

// Shapes at and around every border of the blocks.
inline std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  const auto add = [&](std::string name, Attention::Attributes a, int64_t document = 0) {
    cases.push_back(make_case(std::move(name), a, document));
  };
  add("one token",
      {.batch = 1, .length = 1, .q_heads = 1, .kv_heads = 1, .head_dim = 16, .v_head_dim = 16});
  add("two odd rows",
      {.batch = 2, .length = 7, .q_heads = 4, .kv_heads = 2, .head_dim = 16, .v_head_dim = 16});
  add("odd heads",
      {.batch = 1, .length = 33, .q_heads = 3, .kv_heads = 1, .head_dim = 17, .v_head_dim = 23});
  add("one block",
      {.batch = 1, .length = 64, .q_heads = 2, .kv_heads = 2, .head_dim = 64, .v_head_dim = 64});
  add("one more",
      {.batch = 1, .length = 65, .q_heads = 2, .kv_heads = 1, .head_dim = 64, .v_head_dim = 64});
  add("many blocks",
      {.batch = 2, .length = 263, .q_heads = 4, .kv_heads = 2, .head_dim = 64, .v_head_dim = 64});
  add("wide heads",
      {.batch = 1, .length = 200, .q_heads = 2, .kv_heads = 1, .head_dim = 128, .v_head_dim = 128});
  add("latent",
      {.batch = 1, .length = 150, .q_heads = 2, .kv_heads = 2, .head_dim = 192, .v_head_dim = 128});
  add("group of 8",
      {.batch = 1, .length = 130, .q_heads = 8, .kv_heads = 1, .head_dim = 32, .v_head_dim = 32});
  add("window of 1", {.batch = 1,
                      .length = 100,
                      .q_heads = 2,
                      .kv_heads = 1,
                      .head_dim = 32,
                      .v_head_dim = 32,
                      .window = 1});
  add("window of 50", {.batch = 2,
                       .length = 300,
                       .q_heads = 2,
                       .kv_heads = 1,
                       .head_dim = 80,
                       .v_head_dim = 80,
                       .window = 50});
  add("window of 130", {.batch = 1,
                        .length = 400,
                        .q_heads = 2,
                        .kv_heads = 2,
                        .head_dim = 48,
                        .v_head_dim = 48,
                        .window = 130});
  add("documents of 1",
      {.batch = 1, .length = 140, .q_heads = 2, .kv_heads = 1, .head_dim = 32, .v_head_dim = 32},
      1);
  add("documents of 20",
      {.batch = 2, .length = 260, .q_heads = 4, .kv_heads = 2, .head_dim = 24, .v_head_dim = 24},
      20);
  add("documents and window",
      {.batch = 2,
       .length = 330,
       .q_heads = 2,
       .kv_heads = 1,
       .head_dim = 64,
       .v_head_dim = 64,
       .window = 70},
      100);
  add("sharp", {.batch = 1,
                .length = 190,
                .q_heads = 2,
                .kv_heads = 1,
                .head_dim = 64,
                .v_head_dim = 64,
                .scale = 2.0});
  return cases;
}

}  // namespace shoestring::attention
