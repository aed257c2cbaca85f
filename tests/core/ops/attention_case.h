#pragma once
// Random attention problems and the op run on them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/ops/attention.h"
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
inline std::vector<AttentionCase> shape_cases() {
  std::vector<AttentionCase> cases;
  const auto add = [&](std::string name, Attention::Attributes a) {
    cases.push_back(make_case(std::move(name), a, 0));
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
  return cases;
}

// Windows, documents, both, and scores far apart.
inline std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases = shape_cases();
  const auto add = [&](std::string name, Attention::Attributes a, int64_t document = 0) {
    cases.push_back(make_case(std::move(name), a, document));
  };
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
