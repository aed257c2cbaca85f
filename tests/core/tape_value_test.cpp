#include "core/tape_value.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Value, EncodingsAreMadeOnceAndShared) {
  Device device;
  Stream stream = Stream::immediate(device);
  const std::vector<float> numbers = {1.0f, 1.00390625f, -3.25f};
  const Value x(Tensor::from<float>(device, {3}, numbers));
  const Value same = x;  // a handle to the same value
  const Tensor narrow = x.encoded(stream, Dtype::bf16);
  EXPECT_EQ(narrow.raw(), same.encoded(stream, Dtype::bf16).raw());
  EXPECT_EQ(static_cast<float>(narrow.data<BFloat16>()[1]), 1.0f);
  EXPECT_EQ(x.encoded(stream, Dtype::f32).raw(), x.tensor().raw());
}

TEST(Value, EmptyOnesSaySo) {
  const Value none;
  EXPECT_FALSE(none);
  EXPECT_EQ(none.id(), -1);
  EXPECT_FALSE(none.wants_gradient());
  EXPECT_THROW(none.tensor(), Error);
}

}  // namespace
}  // namespace shoestring
