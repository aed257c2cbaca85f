#include "core/ops/add.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/check.h"

namespace shoestring {
namespace {

template <class T>
void check_add(double multiplier) {
  Device device;
  Stream stream = Stream::immediate(device);
  std::vector<T> x, delta;
  for (int i = 0; i < 37; ++i) {
    x.push_back(T(0.25f * static_cast<float>(i)));
    delta.push_back(T(1.5f - static_cast<float>(i)));
  }
  const Tensor a = Tensor::from<T>(device, {37}, x), b = Tensor::from<T>(device, {37}, delta);
  Add::Saved saved;
  const Tensor y = Add::forward(stream, {.multiplier = multiplier}, {a, b}, saved)[0];
  const Tensors<2> d = Add::grad_input(stream, {.multiplier = multiplier}, saved, {b});
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = static_cast<double>(static_cast<float>(x[i])) +
                        multiplier * static_cast<double>(static_cast<float>(delta[i]));
    EXPECT_EQ(static_cast<float>(y.data<T>()[i]), static_cast<float>(T(static_cast<float>(want))));
    EXPECT_EQ(static_cast<float>(d[0].data<T>()[i]), static_cast<float>(delta[i]));
    EXPECT_EQ(static_cast<float>(d[1].data<T>()[i]),
              static_cast<float>(T(static_cast<float>(multiplier) * static_cast<float>(delta[i]))));
  }
}

TEST(Add, SumsAndItsGradientScalesTheDelta) {
  for (double multiplier : {1.0, 0.5}) {
    check_add<float>(multiplier);
    check_add<BFloat16>(multiplier);
    check_add<double>(multiplier);
  }
}

// Operands are made on the stream, so they are there only when it comes to the sum.
TEST(Add, RunsOnTheStream) {
  Device device;
  Stream stream = Stream::worker(device, "test");
  const Tensor a = Tensor::zeros(device, {3}, Dtype::f32),
               b = Tensor::zeros(device, {3}, Dtype::f32);
  stream.run([a, b] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (float& x : a.span<float>()) x = 1;
    for (float& x : b.span<float>()) x = 4;
  });
  Add::Saved saved;
  const Add::Attributes half{.multiplier = 0.5};
  const Tensor y = Add::forward(stream, half, {a, b}, saved)[0];
  const Tensor d = Add::grad_input(stream, half, saved, {b})[1];
  stream.synchronize();
  EXPECT_EQ(y.data<float>()[2], 3);
  EXPECT_EQ(d.data<float>()[2], 2);
}

TEST(Add, ShapesMustAgree) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Tensor a = Tensor::zeros(device, {3}, Dtype::f32),
               b = Tensor::zeros(device, {4}, Dtype::f32);
  Add::Saved saved;
  EXPECT_THROW(Add::forward(stream, {}, {a, b}, saved), Error);
}

}  // namespace
}  // namespace shoestring
