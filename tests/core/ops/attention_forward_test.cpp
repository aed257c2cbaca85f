#include "tests/core/ops/attention_oracle.h"

namespace shoestring::attention {
namespace {

template <class T>
void expect_forward(double rounding) {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const AttentionValues<T> x(c.attributes);
    const AttentionResult<T> got = run_attention(c, x);
    const AttentionOracle want(c, x);
    const AttentionBounds bounds(c, want, rounding);
    expect_within("o", got.o, want.o, bounds.o);
    expect_within("log_sum_exp", got.log_sum_exp, want.log_sum_exp, bounds.log_sum_exp);
  }
}

TEST(AttentionForward, F32StaysWithinTheErrorModel) { expect_forward<float>(0x1p-24); }
TEST(AttentionForward, Bf16StaysWithinTheErrorModel) { expect_forward<BFloat16>(0x1p-8); }

TEST(AttentionForward, NanOfAKeyReachesExactlyTheTokensThatSeeIt) {
  const AttentionCase c = make_case(
      "nan",
      {.batch = 1, .length = 100, .q_heads = 2, .kv_heads = 1, .head_dim = 32, .v_head_dim = 32});
  AttentionValues<float> x(c.attributes);
  x.k[70 * 32] = std::numeric_limits<float>::quiet_NaN();
  const AttentionResult<float> got = run_attention(c, x);
  for (int64_t t = 0; t < 100; ++t) {
    EXPECT_EQ(std::isnan(got.o[static_cast<size_t>(t) * 64]), t >= 70) << "token " << t;
  }
}

// Scores of several hundred: the maximum is subtracted before the exponential.
TEST(AttentionForward, LargeScoresDoNotOverflow) {
  const AttentionCase c = make_case("large", {.batch = 1,
                                              .length = 150,
                                              .q_heads = 2,
                                              .kv_heads = 1,
                                              .head_dim = 16,
                                              .v_head_dim = 16,
                                              .scale = 40});
  const AttentionValues<float> x(c.attributes);
  const AttentionResult<float> got = run_attention(c, x);
  const AttentionOracle want(c, x);
  expect_within("o", got.o, want.o, AttentionBounds(c, want, 0x1p-24).o);
}

}  // namespace
}  // namespace shoestring::attention
