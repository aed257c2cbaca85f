#include "core/statistic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/parallel_for.h"

namespace shoestring {
namespace {

constexpr int64_t block = 16384;  // elements whose sums are made in one go

template <class T>
double number(const T& x) {
  return static_cast<double>(static_cast<std::conditional_t<sizeof(T) == 8, double, float>>(x));
}

// Eight running sums, so that additions do not wait for one another.
template <class T, bool has_delta>
Statistic of_block(const T* x, const T* delta, double multiplier, int64_t n) {
  constexpr int64_t lanes = 8;
  std::array<double, lanes> squares = {}, largest = {};
  auto take = [&](int64_t lane, int64_t i) {
    double value = number(x[i]);
    if constexpr (has_delta) value += multiplier * number(delta[i]);
    const auto at = static_cast<size_t>(lane);
    squares[at] += value * value;
    largest[at] = std::max(largest[at], std::abs(value));
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) take(lane, i + lane);
  }
  for (; i < n; ++i) take(i % lanes, i);
  Statistic sum{.count = static_cast<double>(n)};
  for (size_t lane = 0; lane < lanes; ++lane) {
    sum.add({.squares = squares[lane], .largest = largest[lane]});
  }
  return sum;
}

}  // namespace

double Statistic::rms() const { return count > 0 ? std::sqrt(squares / count) : 0; }

void Statistic::add(const Statistic& other) {
  squares += other.squares;
  count += other.count;
  largest = std::max(largest, other.largest);
}

Statistic statistic_of(Device& device, const Tensor& x, const Tensor& delta, double multiplier) {
  if (delta) check_tensor("statistic_of", "delta", delta, x.shape(), x.dtype());
  std::vector<Statistic> parts(static_cast<size_t>((x.elements() + block - 1) / block));
  dispatch_float(x.dtype(), [&]<class T>() {
    const T* values = x.data<T>();
    const T* added = delta ? delta.data<T>() : nullptr;
    parallel_for(device, x.elements(), block, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at += block) {
        const int64_t n = std::min(block, end - at);
        parts[static_cast<size_t>(at / block)] =
            added ? of_block<T, true>(values + at, added + at, multiplier, n)
                  : of_block<T, false>(values + at, nullptr, 0, n);
      }
    });
  });
  Statistic all;
  for (const Statistic& part : parts) all.add(part);
  return all;
}

}  // namespace shoestring
