#include "core/tensor.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Shape, CountsAndPrints) {
  const Shape s{2, 3, 4};
  EXPECT_EQ(s.elements(), 24);
  EXPECT_EQ(s.rows(), 6);
  EXPECT_EQ(s[-1], 4);
  EXPECT_EQ(s.text(), "[2, 3, 4]");
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_THROW(s[3], Error);
}

TEST(Tensor, ViewsShareMemory) {
  Device device;
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  const Tensor t = Tensor::from<float>(device, {3, 2}, values);
  const Tensor row = t.rows(1, 2);
  EXPECT_EQ(row.shape(), (Shape{1, 2}));
  EXPECT_EQ(row.data<float>()[0], 2);
  row.data<float>()[0] = 20;
  EXPECT_EQ(t.reshape({6}).data<float>()[2], 20);
  EXPECT_EQ(t.text(), "f32 [3, 2]");
}

TEST(Tensor, WrongUsesAreErrorsThatSayWhat) {
  Device device;
  const Tensor t = Tensor::zeros(device, {3, 2}, Dtype::f32);
  EXPECT_THROW(t.data<double>(), Error);
  EXPECT_THROW(t.reshape({5}), Error);
  EXPECT_THROW(t.rows(2, 4), Error);
  EXPECT_THROW(Tensor(t.block(), 64, {100}, Dtype::f32), Error);
  try {
    check_tensor("linear", "x", t, {4, 2}, Dtype::bf16);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[linear] x must be bf16 [4, 2] but is f32 [3, 2]");
  }
}

TEST(Shape, SizesThatCannotBeCountedAreRefused) {
  const int64_t big = int64_t{1} << 40;
  Device device(DeviceKind::cpu);
  EXPECT_THROW(Tensor(device, {big, big}, Dtype::f32), Error);
  EXPECT_THROW(Tensor(device, {int64_t{1} << 62, 4}, Dtype::f32), Error);  // 0 when it wraps round
  // The number fits, its bytes do not.
  EXPECT_THROW(Tensor(device, {int64_t{1} << 61}, Dtype::f64), Error);
  EXPECT_EQ(Shape({0, big, big}).elements(), 0);
  EXPECT_EQ(Shape({big, 1 << 19}).elements(), int64_t{1} << 59);
}

}  // namespace
}  // namespace shoestring
