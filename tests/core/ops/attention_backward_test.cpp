#include "tests/core/ops/attention_oracle.h"

namespace shoestring::attention {
namespace {

template <class T>
void expect_backward(double rounding) {
  for (const AttentionCase& c : attention_cases()) {
    SCOPED_TRACE(c.name);
    const AttentionValues<T> x(c.attributes);
    const AttentionResult<T> got = run_attention(c, x);
    const AttentionOracle want(c, x);
    const AttentionBounds bounds(c, want, rounding);
    expect_within("dq", got.dq, want.dq, bounds.dq);
    expect_within("dk", got.dk, want.dk, bounds.dk);
    expect_within("dv", got.dv, want.dv, bounds.dv);
  }
}

TEST(AttentionBackward, F32StaysWithinTheErrorModel) { expect_backward<float>(0x1p-24); }
TEST(AttentionBackward, Bf16StaysWithinTheErrorModel) { expect_backward<BFloat16>(0x1p-8); }

}  // namespace
}  // namespace shoestring::attention
