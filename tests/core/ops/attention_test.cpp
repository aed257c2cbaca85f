#include "core/ops/attention.h"

#include "core/check.h"
#include "tests/core/ops/attention_oracle.h"

namespace shoestring::attention {
namespace {

template <class T>
void expect_same_for_any_threads() {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const AttentionValues<T> x(c.attributes);
    const AttentionResult<T> one = run_attention(c, x, 1);
    for (int threads : {2, 3, 4, 7}) expect_same_bits(one, run_attention(c, x, threads));
  }
}
TEST(Attention, SameBitsForAnyNumberOfThreadsF32) { expect_same_for_any_threads<float>(); }
TEST(Attention, SameBitsForAnyNumberOfThreadsBf16) { expect_same_for_any_threads<BFloat16>(); }

template <class T>
std::vector<T> part(const std::vector<T>& x, size_t number, size_t parts) {
  const auto size = static_cast<std::ptrdiff_t>(x.size() / parts);
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(number) * size;
  return {begin, begin + size};
}

TEST(Attention, RowsOfTheBatchAreIndependent) {
  const AttentionCase whole = make_case(
      "batch",
      {.batch = 3, .length = 150, .q_heads = 4, .kv_heads = 2, .head_dim = 32, .v_head_dim = 32},
      40);
  const AttentionValues<float> x(whole.attributes);
  const AttentionResult<float> all = run_attention(whole, x);
  for (size_t b = 0; b < 3; ++b) {
    AttentionCase one = whole;
    one.attributes.batch = 1;
    one.first_key = part(whole.first_key, b, 3);
    AttentionValues<float> y(one.attributes);
    y.q = part(x.q, b, 3), y.k = part(x.k, b, 3), y.v = part(x.v, b, 3), y.dy = part(x.dy, b, 3);
    const AttentionResult<float> alone = run_attention(one, y);
    expect_same_bits({.o = part(all.o, b, 3),
                      .dq = part(all.dq, b, 3),
                      .dk = part(all.dk, b, 3),
                      .dv = part(all.dv, b, 3),
                      .log_sum_exp = part(all.log_sum_exp, b, 3)},
                     alone);
  }
}

// Everything of tokens 90..229 changes, a document of its own: nothing outside may change a bit.
template <class T>
void expect_documents_apart() {
  AttentionCase c = make_case(
      "documents",
      {.batch = 1, .length = 330, .q_heads = 2, .kv_heads = 1, .head_dim = 32, .v_head_dim = 32});
  for (int t = 0; t < 330; ++t) c.first_key[t] = t < 90 ? 0 : t < 230 ? 90 : 230;
  AttentionValues<T> x(c.attributes);
  const AttentionResult<T> before = run_attention(c, x);
  const auto inside = [](size_t i, size_t width) { return i >= 90 * width && i < 230 * width; };
  const auto change = [&](std::vector<T>& values, size_t width) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (inside(i, width)) values[i] = T(3 - 2 * static_cast<float>(values[i]));
    }
  };
  change(x.q, 64), change(x.k, 32), change(x.v, 32), change(x.dy, 64);
  const AttentionResult<T> after = run_attention(c, x);
  const auto compare = [&](const char* what, const std::vector<T>& a, const std::vector<T>& b,
                           size_t width) {
    for (size_t i = 0; i < a.size(); ++i) {
      const bool same = std::memcmp(&a[i], &b[i], sizeof(T)) == 0;
      ASSERT_TRUE(same || inside(i, width)) << what << " of token " << i / width << " changed";
    }
    EXPECT_NE(std::memcmp(&a[100 * width], &b[100 * width], sizeof(T)), 0) << what;
  };
  compare("o", before.o, after.o, 64);
  compare("dq", before.dq, after.dq, 64);
  compare("dk", before.dk, after.dk, 32);
  compare("dv", before.dv, after.dv, 32);
}
TEST(Attention, DocumentsNeverTouchF32) { expect_documents_apart<float>(); }
TEST(Attention, DocumentsNeverTouchBf16) { expect_documents_apart<BFloat16>(); }

int64_t peak_bytes(int64_t length, int threads) {
  const Attention::Attributes a = {.batch = 1,
                                   .length = length,
                                   .q_heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 16,
                                   .v_head_dim = 16,
                                   .scale = 0.25};
  Device device(DeviceKind::cpu, 0, threads);
  Stream stream = Stream::immediate(device);
  const Tensors<4> inputs = {Tensor::zeros(device, {length, 32}, Dtype::f32),
                             Tensor::zeros(device, {length, 16}, Dtype::f32),
                             Tensor::zeros(device, {length, 16}, Dtype::f32),
                             Tensor::zeros(device, {1, length}, Dtype::i32)};
  Attention::Saved saved;
  const Tensors<1> o = Attention::forward(stream, a, inputs, saved);
  Attention::grad_input(stream, a, saved, {o[0]});
  return device.ledger().peak_total();
}

TEST(Attention, MemoryIsLinearInTheLength) {
  for (int threads : {1, 2}) {
    const int64_t shorter = peak_bytes(4096, threads), longer = peak_bytes(16384, threads);
    EXPECT_LE(longer, 4 * shorter) << threads << " threads";
    // All scores of one head at 16,384 would be 1 GiB.
    EXPECT_LE(longer, int64_t{64} << 20) << threads << " threads";
  }
}

// The f64 op is the reference; its gradients are those that complex steps give.
TEST(Attention, F64RunsTheReference) {
  const AttentionCase c = make_case("f64",
                                    {.batch = 2,
                                     .length = 19,
                                     .q_heads = 4,
                                     .kv_heads = 2,
                                     .head_dim = 5,
                                     .v_head_dim = 3,
                                     .window = 7},
                                    9);
  const AttentionValues<double> x(c.attributes);
  const AttentionResult<double> got = run_attention(c, x);
  const AttentionOracle want(c, x);
  expect_same_bits("o", got.o, want.o);
  expect_same_bits("dq", got.dq, want.dq);
  expect_same_bits("dk", got.dk, want.dk);
  expect_same_bits("dv", got.dv, want.dv);
}

TEST(Attention, NoGradientOfTheOutputMeansNone) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const Tensors<4> dx = Attention::grad_input(stream, {}, {}, {});
  for (const Tensor& x : dx) EXPECT_FALSE(x);
}

std::string message_of(const Attention::Attributes& a, const std::vector<int32_t>& first_key) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const Tensor x = Tensor::zeros(device, {4, 32}, Dtype::f32);
  Attention::Saved saved;
  try {
    Attention::forward(stream, a, {x, x, x, tensor_of(device, {1, 4}, first_key)}, saved);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Attention, RefusesWhatItCannotMean) {
  const Attention::Attributes good = {
      .batch = 1, .length = 4, .q_heads = 2, .kv_heads = 2, .head_dim = 16, .v_head_dim = 16};
  EXPECT_EQ(message_of(good, {0, 0, 2, 2}), "");
  EXPECT_NE(message_of(good, {0, 0, 3, 3}).find("token 2 is 3; it must lie in 0..2"),
            std::string::npos);
  EXPECT_NE(message_of(good, {0, 1, 0, 0}).find("token 2 is 0; it must lie in 1..2"),
            std::string::npos);
  EXPECT_NE(message_of(good, {-1, 0, 0, 0}).find("token 0 is -1"), std::string::npos);
  Attention::Attributes bad = good;
  bad.kv_heads = 4;
  EXPECT_NE(message_of(bad, {0, 0, 0, 0}).find("q_heads 2 must be a multiple of kv_heads 4"),
            std::string::npos);
  bad = good, bad.scale = 0;
  EXPECT_NE(message_of(bad, {0, 0, 0, 0}).find("scale"), std::string::npos);
  bad = good, bad.head_dim = 8;
  EXPECT_NE(message_of(bad, {0, 0, 0, 0}).find("q must be f32 [4, 16]"), std::string::npos);
  bad = good, bad.window = -1;
  EXPECT_NE(message_of(bad, {0, 0, 0, 0}).find("window -1"), std::string::npos);
}

}  // namespace
}  // namespace shoestring::attention
