#include "tests/core/ops/attention_products_case.h"

namespace shoestring::attention {
namespace {

TEST(AttentionProducts, F32) { expect_products(multiply_f32, false); }

}  // namespace
}  // namespace shoestring::attention
