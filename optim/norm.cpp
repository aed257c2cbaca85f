#include "optim/norm.h"

#include <algorithm>
#include <cmath>

#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optim/norm.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sum of squares of 64 elements. Eight running sums whatever the vector width, so that every
// instruction set gives the same bits.
double unit_sum(const float* g) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr size_t lanes = hn::MaxLanes(d);
  HWY_ALIGN double sums[8];
  for (size_t lane = 0; lane < 8; lane += lanes) {
    auto sum = hn::Zero(d);
    for (size_t i = lane; i < 64; i += 8) {
      const auto x = hn::PromoteTo(d, hn::LoadU(df, g + i));
      sum = hn::Add(sum, hn::Mul(x, x));
    }
    hn::Store(sum, d, sums + lane);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

void unit_sums(const float* g, int64_t units, double* out) {
  for (int64_t i = 0; i < units; ++i) out[i] = unit_sum(g + i * 64);
}

void block_sums(const float* g, int64_t blocks, double* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    double sum = 0;
    for (int64_t i = 0; i < 64; ++i) sum += unit_sum(g + (b * 64 + i) * 64);
    out[b] = sum;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
HWY_EXPORT(unit_sums);
HWY_EXPORT(block_sums);
namespace {

// A range as units up to the first block border, whole blocks, units after the last border.
struct Cut {
  int64_t head_units, blocks, tail_units;
};

Cut cut(FlatRange range) {
  if (range.begin % norm_unit != 0 || range.end % norm_unit != 0 || range.end < range.begin) {
    fail(cat("the gradient norm needs ranges whose borders are multiples of ", norm_unit,
             ", but got [", range.begin, ", ", range.end, ")"));
  }
  const int64_t first = (range.begin + norm_block - 1) / norm_block * norm_block;
  const int64_t last = range.end / norm_block * norm_block;
  if (first > last) return {range.elements() / norm_unit, 0, 0};
  return {(first - range.begin) / norm_unit, (last - first) / norm_block,
          (range.end - last) / norm_unit};
}

}  // namespace

int64_t norm_terms(FlatRange range) {
  const Cut c = cut(range);
  return c.head_units + c.blocks + c.tail_units;
}

std::vector<double> square_sums(Device& device, FlatSpan<const float> gradients, FlatRange range) {
  const Cut c = cut(range);
  std::vector<double> terms(static_cast<size_t>(c.head_units + c.blocks + c.tail_units));
  if (terms.empty()) return terms;
  const float* g = gradients.at(range);
  double* out = terms.data();
  HWY_DYNAMIC_DISPATCH(unit_sums)(g, c.head_units, out);
  g += c.head_units * norm_unit;
  out += c.head_units;
  parallel_for(device, c.blocks, 4, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(block_sums)(g + begin * norm_block, end - begin, out + begin);
  });
  HWY_DYNAMIC_DISPATCH(unit_sums)(g + c.blocks * norm_block, c.tail_units, out + c.blocks);
  return terms;
}

double sum_of_squares(std::span<const FlatRange> ranges, std::span<const double> terms) {
  double total = 0, block = 0;
  int64_t at = 0;
  size_t next = 0;
  auto take = [&](int64_t count, int64_t elements) {
    check(next + static_cast<size_t>(count) <= terms.size(), "gradient norm: too few terms");
    for (int64_t i = 0; i < count; ++i) {
      block += terms[next++];
      at += elements;
      if (at % norm_block == 0) {
        total += block;
        block = 0;
      }
    }
  };
  for (const FlatRange& range : ranges) {
    check(range.begin >= at, "gradient norm: ranges must follow one another");
    if (range.begin / norm_block != at / norm_block) {
      total += block;
      block = 0;
    }
    at = range.begin;
    const Cut c = cut(range);
    take(c.head_units, norm_unit);
    take(c.blocks, norm_block);
    take(c.tail_units, norm_unit);
  }
  check(next == terms.size(), "gradient norm: too many terms");
  return total + block;
}

double clip_coefficient(double norm, double max_norm) {
  if (max_norm <= 0) return 1;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

std::optional<NonFinite> first_non_finite(std::span<const Param> params,
                                          FlatSpan<const float> gradients, FlatRange range) {
  for (const Slice& slice : slices_of(params, {&range, 1})) {
    const float* g = gradients.at(slice.flat);
    for (int64_t i = 0; i < slice.flat.elements(); ++i) {
      if (std::isfinite(g[i])) continue;
      return NonFinite{params[static_cast<size_t>(slice.param)].info.name, slice.begin + i, g[i]};
    }
  }
  return std::nullopt;
}

}  // namespace shoestring
#endif
