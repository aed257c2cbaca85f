#include "core/ops/join_columns.h"

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(JoinColumns, JoinsAndItsGradientCutsAtTheSamePlace) {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    Device device(DeviceKind::cpu, 0, 3);
    Stream stream = Stream::immediate(device);
    constexpr int64_t rows = 700, a = 5, b = 31;
    const Tensor first = make_tensor(device, {rows, a}, dtype, random_values(rows * a, 1));
    const Tensor second = make_tensor(device, {rows, b}, dtype, random_values(rows * b, 2));
    NothingSaved saved;
    const Tensor y = JoinColumns::forward(stream, {.first = a}, {first, second}, saved)[0];
    ASSERT_EQ(y.shape(), (Shape{rows, a + b}));
    const auto joined = values_of(y), x = values_of(first), z = values_of(second);
    for (size_t t = 0; t < rows; ++t) {
      for (size_t i = 0; i < a + b; ++i) {
        ASSERT_EQ(joined[t * (a + b) + i], i < a ? x[t * a + i] : z[t * b + i - a]);
      }
    }
    const auto back = JoinColumns::grad_input(stream, {.first = a}, saved, {y});
    expect_same_bits(back[0], first, "first");
    expect_same_bits(back[1], second, "second");
    EXPECT_FALSE(JoinColumns::grad_input(stream, {.first = a}, saved, {Tensor()})[0]);
  }
}

TEST(JoinColumns, WrongShapesAreErrors) {
  Device device;
  Stream stream = Stream::immediate(device);
  NothingSaved saved;
  const Tensor x = Tensor::zeros(device, {3, 4}, Dtype::f32);
  const Tensor shorter = Tensor::zeros(device, {2, 4}, Dtype::f32);
  const Tensor other = Tensor::zeros(device, {3, 4}, Dtype::bf16);
  EXPECT_THROW(JoinColumns::forward(stream, {.first = 3}, {x, x}, saved), Error);
  EXPECT_THROW(JoinColumns::forward(stream, {.first = 4}, {x, shorter}, saved), Error);
  EXPECT_THROW(JoinColumns::forward(stream, {.first = 4}, {x, other}, saved), Error);
}

}  // namespace
}  // namespace shoestring
