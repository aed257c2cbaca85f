#include "core/instruction_set.h"
#include "tests/core/ops/attention_products_case.h"

namespace shoestring::attention {
namespace {

// Where the processor (or the cap) has no bf16 products these kernels are never entered; the op
// widens instead, which attention_forward_test and attention_backward_test cover.
TEST(AttentionProductsBf16, AgreeWithDoubleWhereTheProcessorHasThem) {
  if (has_bf16_products()) {
    expect_products(multiply_bf16, true);
  } else {
    EXPECT_NE(instruction_set(), "avx512_bf16");
  }
}

}  // namespace
}  // namespace shoestring::attention
