#include "core/ops/e5m6_attention.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/fp8/e5m6.h"
#include "tests/core/ops/attention_case.h"

namespace shoestring {
namespace {

using namespace shoestring::attention;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.text() == b.text() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// Two rows of documents, shared key heads, a width of heads that is no multiple of a tile.
class E5M6AttentionTest : public ::testing::TestWithParam<Dtype> {
 protected:
  Tensor random(const char* name, int64_t columns) {
    Tensor x(device_, {a_.batch * a_.length, columns}, GetParam());
    const RandomStream random(3, name);
    dispatch_float(GetParam(), [&]<class T>() {
      for (int64_t i = 0; i < x.elements(); ++i) {
        x.data<T>()[i] = T(static_cast<float>(random.normal(static_cast<uint64_t>(i))));
      }
    });
    return x;
  }
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  const AttentionCase case_ = make_case(
      "e5m6",
      {.batch = 2, .length = 70, .q_heads = 6, .kv_heads = 2, .head_dim = 16, .v_head_dim = 24},
      20);
  const Attention::Attributes& a_ = case_.attributes;
};

// Forward with o as it is, backward with what 12 bits keep of it.
TEST_P(E5M6AttentionTest, IsAttentionThatKeepsTwelveBits) {
  const Tensors<4> x = {random("q", 6 * 16), random("k", 2 * 16), random("v", 2 * 24),
                        Tensor::from<int32_t>(device_, {2, 70}, case_.first_key)};
  const Tensor dy = random("dy", 6 * 24);
  Attention::Saved plain;
  const Tensor o = Attention::forward(stream_, a_, x, plain)[0];
  E5M6Attention::Saved saved;
  const auto y = E5M6Attention::forward(stream_, a_, x, saved);
  EXPECT_TRUE(same_bits(y[0], o));
  const E5M6Tensor stored = store_e5m6(stream_, o);
  EXPECT_TRUE(same_bits(y[1], stored.codes) && same_bits(y[2], stored.scales));
  EXPECT_EQ(saved.codes.block(), y[1].block());  // one copy, whoever reads it
  saved.each([&](const Tensor& t) { EXPECT_NE(t.block(), y[0].block()); });  // and no other

  plain.o = load_e5m6(stream_, stored, 6 * 24, GetParam());
  EXPECT_FALSE(same_bits(plain.o, o));
  const auto want = Attention::grad_input(stream_, a_, plain, {dy});
  const auto got = E5M6Attention::grad_input(stream_, a_, saved, {dy});
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(got[i], want[i])) << i;
  EXPECT_FALSE(got[3]);
}

// What the seven significant bits cost: a few thousandths of the gradients' size.
TEST_P(E5M6AttentionTest, GradientsAreCloseToThoseOfTheWholeOutput) {
  const Tensors<4> x = {random("q", 6 * 16), random("k", 2 * 16), random("v", 2 * 24),
                        Tensor::from<int32_t>(device_, {2, 70}, case_.first_key)};
  const Tensor dy = random("dy", 6 * 24);
  Attention::Saved plain;
  Attention::forward(stream_, a_, x, plain);
  E5M6Attention::Saved saved;
  E5M6Attention::forward(stream_, a_, x, saved);
  const auto want = Attention::grad_input(stream_, a_, plain, {dy});
  const auto got = E5M6Attention::grad_input(stream_, a_, saved, {dy});
  for (size_t i = 0; i < 3; ++i) {
    double difference = 0, norm = 0;
    dispatch_float(GetParam(), [&]<class T>() {
      for (int64_t e = 0; e < want[i].elements(); ++e) {
        const auto there = double{static_cast<float>(want[i].data<T>()[e])};
        difference += std::pow(double{static_cast<float>(got[i].data<T>()[e])} - there, 2);
        norm += there * there;
      }
    });
    EXPECT_LT(std::sqrt(difference / norm), 0.01) << i;
  }
  EXPECT_TRUE(same_bits(got[2], want[2]));  // dv does not read o
}

TEST_P(E5M6AttentionTest, AbsentGradientsStayAbsent) {
  EXPECT_FALSE(E5M6Attention::grad_input(stream_, a_, {}, {})[0]);
}

INSTANTIATE_TEST_SUITE_P(Types, E5M6AttentionTest, ::testing::Values(Dtype::f32, Dtype::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace shoestring
