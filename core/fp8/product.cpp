#include "core/fp8/product.h"

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/fp8/exact_chunks.h"
#include "core/fp8/hopper_chunks.h"
#include "core/panel_product.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

// One operand, seen along its own extent (rows of op(A), columns of op(B)) and along k.
struct Side {
  const Fp8Tensor& x;
  bool k_is_rows;

  int64_t extent() const { return k_is_rows ? x.codes.columns() : x.codes.rows(); }
  int64_t depth() const { return k_is_rows ? x.codes.rows() : x.codes.columns(); }
  bool folds() const { return x.encoding.scales == ScaleKind::power_of_two; }
  Fp8Reach reach() const {
    return {k_is_rows ? x.encoding.tile.rows : x.encoding.tile.columns, folds()};
  }
  float scale(int64_t i, int64_t k) const {
    const Fp8Tile& tile = x.encoding.tile;
    const float* scales = x.scales.data<float>();
    if (tile.whole()) return *scales;
    const int64_t row = k_is_rows ? k : i, column = k_is_rows ? i : k;
    return scales[row / tile.rows * x.scales.columns() + column / tile.columns];
  }
};

// Scales of one operand for every chunk, spread out: [chunks, stride].
struct SpreadScales {
  std::vector<float> values;
  int64_t stride = 0;
};
SpreadScales spread(Device& device, const Side& side, int64_t chunk, bool ones) {
  const int64_t chunks = (side.depth() + chunk - 1) / chunk, extent = side.extent();
  SpreadScales s{.values = {}, .stride = (extent + 63) / 64 * 64};
  s.values.assign(static_cast<size_t>(chunks * s.stride), ones ? 1.0f : 0.0f);
  if (ones) return s;
  parallel_for(device, chunks, rows_a_range(extent), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      float* to = s.values.data() + c * s.stride;
      for (int64_t i = 0; i < extent; ++i) to[i] = side.scale(i, c * chunk);
    }
  });
  return s;
}

int64_t chunk_length(const Fp8Product& p, const Side& a, const Side& b) {
  const int64_t depth = promotion_depth(p.arithmetic, a.reach(), b.reach());
  return depth > 0 ? depth : std::max<int64_t>(a.depth(), 1);
}

// The codes as bf16: alone, or with their scales where those change only the exponent.
Tensor widened(Stream& stream, const Side& side) {
  return side.folds() ? dequantise(stream, side.x, Dtype::bf16) : widen(stream, side.x);
}

void multiply_fast(Stream& stream, const Fp8Product& p, const Side& a, const Side& b) {
  const int64_t chunk = chunk_length(p, a, b);
  const Tensor wide_a = widened(stream, a), wide_b = widened(stream, b);
  stream.run([&device = stream.device(), p, chunk, wide_a, wide_b, a_rows = a.k_is_rows,
              b_rows = b.k_is_rows] {
    const Side a{p.a, a_rows}, b{p.b, b_rows};
    const bool scaled = !a.folds() || !b.folds();
    SpreadScales rows, columns;
    if (scaled) {
      rows = spread(device, a, chunk, a.folds());
      columns = spread(device, b, chunk, b.folds());
    }
    chunked_panel_product(device, {.c = p.c,
                                   .a = wide_a,
                                   .b = wide_b,
                                   .spec = {.transpose_a = p.transpose_a,
                                            .transpose_b = p.transpose_b,
                                            .accumulate = p.accumulate,
                                            .exact = true},
                                   .scales = {.depth = chunk,
                                              .rows = scaled ? rows.values.data() : nullptr,
                                              .rows_stride = rows.stride,
                                              .columns = scaled ? columns.values.data() : nullptr,
                                              .columns_stride = columns.stride}});
  });
}

void finish_rows(const Tensor& c, const float* sums, int64_t row, int64_t rows, bool accumulate) {
  const int64_t n = c.columns();
  for (int64_t i = row * n; i < (row + rows) * n; ++i) {
    const float sum = sums[i - row * n];
    if (c.dtype() == Dtype::bf16) {
      c.data<BFloat16>()[i] = BFloat16(sum);
    } else {
      float& out = c.data<float>()[i];
      out = accumulate ? out + sum : sum;
    }
  }
}

// Blocks of rows go through all chunks on one thread each.
void multiply_chunks(Device& device, const Fp8Product& p, const Side& a, const Side& b) {
  const int64_t chunk = chunk_length(p, a, b), m = a.extent(), n = b.extent();
  const SpreadScales rows = spread(device, a, chunk, false);
  const SpreadScales columns = spread(device, b, chunk, false);
  const auto* a_codes = reinterpret_cast<const uint8_t*>(p.a.codes.raw());
  const auto* b_codes = reinterpret_cast<const uint8_t*>(p.b.codes.raw());
  const int64_t a_columns = p.a.codes.columns(), b_columns = p.b.codes.columns();
  const int64_t block = std::clamp<int64_t>((m + device.threads() - 1) / device.threads(), 1, 64);
  parallel_for_dynamic(device, (m + block - 1) / block, [&](int64_t index) {
    const int64_t row = index * block, count = std::min(block, m - row);
    std::vector<float> sums(static_cast<size_t>(count * n), 0.0f);
    const ChunkProblem problem = {.a = a_codes + (p.transpose_a ? row : row * a_columns),
                                  .a_row = p.transpose_a ? 1 : a_columns,
                                  .a_step = p.transpose_a ? a_columns : 1,
                                  .b = b_codes,
                                  .b_step = p.transpose_b ? 1 : b_columns,
                                  .b_column = p.transpose_b ? b_columns : 1,
                                  .a_format = p.a.encoding.format,
                                  .b_format = p.b.encoding.format,
                                  .m = count,
                                  .n = n,
                                  .k = a.depth(),
                                  .chunk = chunk,
                                  .rows = rows.values.data() + row,
                                  .rows_stride = rows.stride,
                                  .columns = columns.values.data(),
                                  .columns_stride = columns.stride,
                                  .sums = sums.data(),
                                  .sums_stride = n};
    if (p.arithmetic.accumulator == Accumulator::hopper) {
      hopper_chunks(problem, p.arithmetic.bits);
    } else {
      exact_chunks(problem);
    }
    finish_rows(p.c, sums.data(), row, count, p.accumulate);
  });
}

void check_product(const Fp8Product& p, const Side& a, const Side& b) {
  const bool fits =
      a.depth() == b.depth() && p.c.rows() == a.extent() && p.c.columns() == b.extent();
  const bool types = p.c.dtype() == Dtype::f32 || (p.c.dtype() == Dtype::bf16 && !p.accumulate);
  if (fits && types) return;
  fail(cat(
      "[fp8_product] ", p.a.codes.text(), p.transpose_a ? " transposed" : "", " times ",
      p.b.codes.text(), p.transpose_b ? " transposed" : "", p.accumulate ? " added to " : " into ",
      p.c.text(),
      fits ? ": the result is f32 or, where nothing is added to, bf16" : ": sizes do not match"));
}

}  // namespace

int64_t promotion_depth(const Fp8Arithmetic& arithmetic, const Fp8Reach& a, const Fp8Reach& b) {
  const bool fast = arithmetic.accumulator == Accumulator::fast;
  std::vector<int64_t> lengths;
  if (fast) lengths.push_back(128);
  if (arithmetic.promotion > 0) lengths.push_back(arithmetic.promotion);
  for (const Fp8Reach& side : {a, b}) {
    if (side.depth == 0 || (fast && side.folds)) continue;
    if (side.depth < 32) {
      fail(cat("[fp8_product] scales that change every ", side.depth,
               " along k; tiles must cover at least 32"));
    }
    lengths.push_back(side.depth);
  }
  if (lengths.empty()) return 0;
  const int64_t chunk = *std::min_element(lengths.begin(), lengths.end());
  for (int64_t length : lengths) {
    if (length % chunk == 0) continue;
    fail(cat("[fp8_product] promotion and scales along k must divide one another, but ", chunk,
             " does not divide ", length));
  }
  return chunk;
}

void fp8_product(Stream& stream, const Fp8Product& p) {
  const Side a{p.a, p.transpose_a}, b{p.b, !p.transpose_b};
  check_product(p, a, b);
  if (p.c.elements() == 0) return;
  if (p.arithmetic.accumulator == Accumulator::fast) {
    multiply_fast(stream, p, a, b);
    return;
  }
  stream.run([&device = stream.device(), p] {
    multiply_chunks(device, p, {p.a, p.transpose_a}, {p.b, !p.transpose_b});
  });
}

}  // namespace shoestring
