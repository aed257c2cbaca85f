#include "core/ops/add_bias.h"

#include <cstring>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// The op is linear, so that its exact gradient is at hand: dx = dy, db = column sums of dy.
TEST(AddBias, ForwardAndGradientsInEveryTypeOnAnyNumberOfThreads) {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {333, 50}}) {
      Device keep;  // of the tensors that outlive a turn of the loop
      Tensor first_y, first_db;
      for (int threads = 1; threads <= 4; ++threads) {
        Device device(DeviceKind::cpu, 0, threads);
        Stream stream = Stream::immediate(device);
        Tensor x = make_tensor(device, {rows, width}, dtype, random_values(rows * width, 1));
        Tensor dy = make_tensor(device, {rows, width}, dtype, random_values(rows * width, 2));
        Tensor b = make_tensor(device, {width}, dtype, random_values(width, 3));
        Tensor db = make_tensor(device, {width}, Dtype::f32, random_values(width, 4));
        NothingSaved saved;
        std::vector<double> expected = values_of(x), sums = values_of(db);
        const auto bias = values_of(b), gradient = values_of(dy);
        for (size_t i = 0; i < expected.size(); ++i) {
          expected[i] += bias[i % bias.size()];
          sums[i % bias.size()] += gradient[i];
        }
        const auto y = AddBias::forward(stream, {}, {x}, {b}, saved);
        const auto dx = AddBias::grad_input(stream, {}, saved, {b}, {dy}, {db});
        expect_near(y[0], expected, {1.01, 1e-9}, "y");
        EXPECT_EQ(dx[0].raw(), dy.raw());
        const double bound = static_cast<double>(rows) * roundoff(Dtype::f32) * 4;
        expect_near(db, sums, {1.01, bound}, "db");
        if (threads == 1) {
          first_y = make_tensor(keep, {rows, width}, dtype, values_of(y[0]));
          first_db = make_tensor(keep, {width}, Dtype::f32, values_of(db));
        }
        expect_same_bits(y[0], first_y, "y");
        expect_same_bits(db, first_db, "db");
      }
    }
  }
}

TEST(AddBias, WrongBiasIsNamedAndEmptyGradientIsNoWork) {
  Device device;
  Stream stream = Stream::immediate(device);
  NothingSaved saved;
  Tensor x = Tensor::zeros(device, {2, 5}, Dtype::f32), b = Tensor::zeros(device, {4}, Dtype::f32);
  EXPECT_THROW(AddBias::forward(stream, {}, {x}, {b}, saved), Error);
  EXPECT_FALSE(AddBias::grad_input(stream, {}, saved, {b}, {Tensor()}, {b})[0]);
}

}  // namespace
}  // namespace shoestring
