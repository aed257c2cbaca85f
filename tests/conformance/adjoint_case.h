#pragma once
// <A x, y> and <x, A' y> of an operation that ranks do together.

#include <array>
#include <cmath>
#include <functional>
#include <string>

#include "tests/parallel/expert_case.h"

namespace shoestring {

inline double dot(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), cat(a.text(), " against ", b.text()));
  double sum = 0;
  for (int64_t i = 0; i < a.elements(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

// One rank's part of <A x, y> and of <x, A' y>.
struct Products {
  double forward = 0, backward = 0;
};

// One rank's place, and tensors that it alone has or that all have alike.
struct Here {
  Communicator& ranks;
  Device& device;
  Stream& stream;
  Tensor own(const Shape& shape, const std::string& what) {
    return testing::normal_tensor(device, shape, Dtype::f64, cat(what, " of rank ", ranks.rank()));
  }
  Tensor alike(const Shape& shape, const std::string& what) {
    return testing::normal_tensor(device, shape, Dtype::f64, what);
  }
};
using RankProducts = std::function<Products(Here&)>;

inline void expect_adjoint(const std::string& what, int ranks, const RankProducts& run,
                           double tolerance = 1e-12) {
  run_ranks(ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    Here here{world, device, stream};
    const Products p = run(here);
    std::array<double, 2> sums = {p.forward, p.backward};
    world.all_reduce(buffer_of(std::span<double>(sums)), Reduce::sum, stream);
    stream.synchronize();
    const double apart = std::abs(sums[0] - sums[1]);
    check(sums[0] != 0 && apart <= tolerance * std::max(1.0, std::abs(sums[0])),
          cat(what, " on ", ranks, " ranks: <A x, y> = ", sums[0], ", <x, A' y> = ", sums[1]));
  });
}

// x + h by.
inline Tensor moved(const Tensor& x, const Tensor& by, double h) {
  Tensor t(x.device(), x.shape(), Dtype::f64);
  for (int64_t i = 0; i < x.elements(); ++i) {
    t.data<double>()[i] = x.data<double>()[i] + h * by.data<double>()[i];
  }
  return t;
}

}  // namespace shoestring
