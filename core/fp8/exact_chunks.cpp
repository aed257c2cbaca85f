#include "core/fp8/exact_chunks.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/fp8/small_float.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/fp8/exact_chunks.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F64 = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, F64>;
constexpr int64_t vectors = 4;  // of columns at a time

int64_t panel_width() { return vectors * static_cast<int64_t>(hn::Lanes(F64())); }

// totals[j] += f32(sum over k of a[k] * panel[k][j]) * (row * columns[j]), j in [0, panel_width()).
void add_chunk(const double* a, const double* panel, int64_t depth, float row, const float* columns,
               float* totals) {
  const F64 d;
  const Narrow narrow;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<F64> sums[vectors];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (int64_t k = 0; k < depth; ++k) {
    const auto x = hn::Set(d, a[k]);
    for (size_t v = 0; v < vectors; ++v) {
      // Products are exact, so that a fused and a separate addition are the same.
      sums[v] = hn::MulAdd(x, hn::LoadU(d, panel + v * lanes), sums[v]);
    }
    panel += vectors * lanes;
  }
  for (size_t v = 0; v < vectors; ++v) {
    const auto scale = hn::Mul(hn::Set(narrow, row), hn::LoadU(narrow, columns + v * lanes));
    const auto scaled = hn::Mul(hn::DemoteTo(narrow, sums[v]), scale);
    hn::StoreU(hn::Add(hn::LoadU(narrow, totals + v * lanes), scaled), narrow, totals + v * lanes);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(panel_width);
HWY_EXPORT(add_chunk);

using Table = std::array<double, 256>;
Table table_of(Dtype format) {
  Table table;
  for (uint32_t code = 0; code < 256; ++code) table[code] = decode(facts_of(format), code);
  return table;
}

}  // namespace

void exact_chunks(const ChunkProblem& p) {
  const Table a_values = table_of(p.a_format), b_values = table_of(p.b_format);
  const int64_t width = HWY_DYNAMIC_DISPATCH(panel_width)();
  std::vector<double> a(static_cast<size_t>(p.m * p.k));
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t k = 0; k < p.k; ++k) {
      a[static_cast<size_t>(i * p.k + k)] = a_values[p.a[i * p.a_row + k * p.a_step]];
    }
  }
  std::vector<double> panel(static_cast<size_t>(std::min(p.chunk, p.k) * width));
  std::vector<float> totals(static_cast<size_t>(p.m * width));
  for (int64_t j = 0; j < p.n; j += width) {
    const int64_t columns = std::min(width, p.n - j);
    std::fill(totals.begin(), totals.end(), 0.0f);
    for (int64_t k = 0; k < p.k; k += p.chunk) {
      const int64_t depth = std::min(p.chunk, p.k - k), chunk = k / p.chunk;
      for (int64_t i = 0; i < depth; ++i) {
        const uint8_t* from = p.b + (k + i) * p.b_step + j * p.b_column;
        double* to = panel.data() + i * width;
        for (int64_t c = 0; c < width; ++c)
          to[c] = c < columns ? b_values[from[c * p.b_column]] : 0;
      }
      for (int64_t i = 0; i < p.m; ++i) {
        HWY_DYNAMIC_DISPATCH(add_chunk)
        (a.data() + i * p.k + k, panel.data(), depth, p.rows[chunk * p.rows_stride + i],
         p.columns + chunk * p.columns_stride + j, totals.data() + i * width);
      }
    }
    for (int64_t i = 0; i < p.m; ++i) {
      std::copy_n(totals.data() + i * width, columns, p.sums + i * p.sums_stride + j);
    }
  }
}

}  // namespace shoestring
#endif  // HWY_ONCE
