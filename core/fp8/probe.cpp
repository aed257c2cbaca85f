#include "core/fp8/probe.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/fp8/small_float.h"

namespace shoestring {
namespace {

double number(const Tensor& x, int64_t i) {
  return x.dtype() == Dtype::bf16 ? static_cast<double>(static_cast<float>(x.data<BFloat16>()[i]))
                                  : static_cast<double>(x.data<float>()[i]);
}

}  // namespace

std::string_view name_of(LinearProduct product) {
  constexpr std::string_view names[] = {"fprop", "dgrad", "wgrad"};
  return names[static_cast<int>(product)];
}

double ProbeFigures::relative_error() const {
  if (difference == 0) return 0;
  return std::sqrt(difference / norm);  // infinite where bf16 gives zeros
}

void ProbeFigures::add(const ProbeFigures& other) {
  difference += other.difference;
  norm += other.norm;
  values += other.values;
  saturated += other.saturated;
  flushed += other.flushed;
  for (size_t i = 0; i < amax.size(); ++i) amax[i] += other.amax[i];
  zeros += other.zeros;
}

void Fp8Probe::compare(int param, LinearProduct product, const Tensor& got, const Tensor& want) {
  check_tensor("fp8_probe", "got", got, want.shape(), got.dtype());
  ProbeFigures& f = figures_[{param, product}];
  for (int64_t i = 0; i < got.elements(); ++i) {
    const double y = number(want, i), error = number(got, i) - y;
    f.difference += error * error;
    f.norm += y * y;
  }
}

void Fp8Probe::tell(int param, LinearProduct product, const Tensor& x, const Fp8Tensor& quantised) {
  ProbeFigures& f = figures_[{param, product}];
  const SmallFloat& format = facts_of(quantised.encoding.format);
  const Fp8Tile& tile = quantised.encoding.tile;
  const float* scales = quantised.scales.data<float>();
  const auto* codes = reinterpret_cast<const uint8_t*>(quantised.codes.raw());
  const int64_t columns = x.columns();
  std::vector<double> amax(static_cast<size_t>(quantised.scales.elements()), 0);
  for (int64_t i = 0; i < x.elements(); ++i) {
    const int64_t at = tile.whole() ? 0
                                    : i / columns / tile.rows * quantised.scales.columns() +
                                          i % columns / tile.columns;
    const double value = number(x, i);
    double& most = amax[static_cast<size_t>(at)];
    most = std::max(most, std::abs(value));
    f.values += 1;
    // The scale is rounded, so that its own tile's amax may lie just above what it covers.
    const double covered = double{format.largest} * static_cast<double>(scales[at]);
    f.saturated += std::abs(value) > covered * (1 + 0x1p-20);
    f.flushed += value != 0 && (codes[i] & 0x7f) == 0;
  }
  for (int64_t i = 0; i < quantised.scales.elements(); ++i) {
    if (!std::isfinite(scales[i])) continue;
    const double most = amax[static_cast<size_t>(i)];
    if (most == 0) {
      ++f.zeros;
      continue;
    }
    const int bucket = std::clamp(std::ilogb(most) + 64, 0, ProbeFigures::buckets - 1);
    ++f.amax[static_cast<size_t>(bucket)];
  }
}

}  // namespace shoestring
