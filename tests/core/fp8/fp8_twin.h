#pragma once
// Plain twins of quantisers and products: loops over elements, straight from the definitions.

#include <cmath>
#include <string>
#include <vector>

#include "core/fp8/product.h"
#include "core/fp8/small_float.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring::testing {

inline float value_at(const Tensor& x, int64_t i) {
  return x.dtype() == Dtype::bf16 ? static_cast<float>(x.data<BFloat16>()[i]) : x.data<float>()[i];
}

// Rows of very different sizes, so that scales matter.
inline Tensor spread_tensor(Device& device, Shape shape, Dtype dtype, std::string_view name) {
  Tensor t(device, std::move(shape), dtype);
  const RandomStream random(11, name);
  for (int64_t i = 0; i < t.elements(); ++i) {
    const double size = std::exp2(
        static_cast<double>(random.below(static_cast<uint64_t>(i / t.columns() + 7000000), 20)) -
        10);
    const auto x = static_cast<float>(random.normal(static_cast<uint64_t>(i)) * size);
    dispatch_float(dtype, [&]<class T>() { t.data<T>()[i] = T(x); });
  }
  return t;
}

struct TwinTensor {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

inline float twin_scale(float amax, ScaleKind kind, float largest) {
  float scale = amax / largest;
  if (!std::isfinite(scale)) return std::numeric_limits<float>::quiet_NaN();
  scale = std::max(scale, smallest_scale);
  if (kind == ScaleKind::power_of_two) {
    int exponent = 0;
    const float fraction = std::frexp(scale, &exponent);  // [0.5, 1)
    scale = std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
  }
  return scale;
}

inline TwinTensor twin_quantise(const Tensor& x, const Fp8Encoding& e) {
  const int64_t rows = x.rows(), columns = x.columns();
  const int64_t tr = e.tile.whole() ? rows : e.tile.rows;
  const int64_t tc = e.tile.whole() ? columns : e.tile.columns;
  const int64_t down = (rows + tr - 1) / tr, across = (columns + tc - 1) / tc;
  const SmallFloat& f = facts_of(e.format);
  TwinTensor twin{std::vector<uint8_t>(static_cast<size_t>(rows * columns)),
                  std::vector<float>(static_cast<size_t>(down * across), 0)};
  for (int64_t i = 0; i < rows * columns; ++i) {
    float& amax = twin.scales[static_cast<size_t>(i / columns / tr * across + i % columns / tc)];
    const float a = std::fabs(value_at(x, i));
    amax = std::isnan(a) || std::isnan(amax) ? std::numeric_limits<float>::quiet_NaN()
                                             : std::max(a, amax);
  }
  for (float& s : twin.scales) s = twin_scale(s, e.scales, f.largest);
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float s = twin.scales[static_cast<size_t>(i / columns / tr * across + i % columns / tc)];
    twin.codes[static_cast<size_t>(i)] = static_cast<uint8_t>(encode(f, value_at(x, i) / s));
  }
  return twin;
}

inline float decoded(const Fp8Tensor& x, int64_t i) {
  return decode(facts_of(x.encoding.format), reinterpret_cast<const uint8_t*>(x.codes.raw())[i]);
}
inline float scale_at(const Fp8Tensor& x, int64_t row, int64_t column) {
  const Fp8Tile& t = x.encoding.tile;
  if (t.whole()) return x.scales.data<float>()[0];
  return x.scales.data<float>()[row / t.rows * x.scales.columns() + column / t.columns];
}

// The exact accumulator by its definition, and the sum of magnitudes.
struct TwinProduct {
  std::vector<float> values;
  std::vector<double> magnitudes;
};
inline TwinProduct twin_product(const Fp8Product& p, int64_t chunk) {
  const int64_t m = p.transpose_a ? p.a.codes.columns() : p.a.codes.rows();
  const int64_t n = p.transpose_b ? p.b.codes.rows() : p.b.codes.columns();
  const int64_t depth = p.transpose_a ? p.a.codes.rows() : p.a.codes.columns();
  // Values and scales along k.
  auto lines = [&](const Fp8Tensor& x, int64_t extent, bool k_is_rows) {
    std::vector<std::vector<std::pair<double, float>>> list(static_cast<size_t>(extent));
    for (int64_t i = 0; i < extent; ++i) {
      for (int64_t k = 0; k < depth; ++k) {
        const int64_t row = k_is_rows ? k : i, column = k_is_rows ? i : k;
        list[static_cast<size_t>(i)].emplace_back(decoded(x, row * x.codes.columns() + column),
                                                  scale_at(x, row, column));
      }
    }
    return list;
  };
  const auto a = lines(p.a, m, p.transpose_a), b = lines(p.b, n, !p.transpose_b);
  TwinProduct twin;
  for (const auto& row : a) {
    for (const auto& column : b) {
      float total = 0;
      double magnitude = 0;
      for (int64_t begin = 0; begin < depth; begin += chunk) {
        double sum = 0, size = 0;  // products are exact, sums of E5M2 rounded in the order of k
        for (int64_t k = begin; k < std::min(begin + chunk, depth); ++k) {
          const auto at = static_cast<size_t>(k);
          const double product = row[at].first * column[at].first;
          sum += product;
          size += std::fabs(product);
        }
        const auto at = static_cast<size_t>(begin);
        const float scale = row[at].second * column[at].second;
        total += static_cast<float>(sum) * scale;
        magnitude += size * static_cast<double>(scale);
      }
      twin.values.push_back(total);
      twin.magnitudes.push_back(magnitude);
    }
  }
  return twin;
}

}  // namespace shoestring::testing
