#include "core/peak.h"

#include <algorithm>
#include <chrono>

#include "core/matmul.h"
#include "core/ops/convert.h"

namespace shoestring {
namespace {

// FLOP/s of one product; random-looking values, because zeros run faster on some processors.
double rate_of(Device& device, const Tensor& c, const Tensor& a, const Tensor& b) {
  const auto start = std::chrono::steady_clock::now();
  matmul(device, c, a, b, {.transpose_b = true});
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto n = static_cast<double>(a.rows());
  return 2 * n * n * n / seconds;
}

}  // namespace

double measured_peak_flops(Device& device, Dtype dtype) {
  constexpr double budget = 0.25;  // seconds a size
  double best = 0;
  Stream stream = Stream::immediate(device);
  for (int64_t n : {1024, 2048}) {
    Tensor a(device, {n, n}, Dtype::f32, MemoryKind::workspace);
    for (int64_t i = 0; i < a.elements(); ++i) {
      a.data<float>()[i] = static_cast<float>((i * 2654435761u % 1000) - 500) / 500;
    }
    if (dtype != Dtype::f32) a = convert(stream, a, dtype, MemoryKind::workspace);
    const Tensor c(device, {n, n}, dtype, MemoryKind::workspace);
    rate_of(device, c, a, a);  // makes the primitive and touches the memory
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
           budget) {
      best = std::max(best, rate_of(device, c, a, a));
    }
  }
  return best;
}

}  // namespace shoestring
