#include "core/fp8/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/fp8/quantise.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/fp8/codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// Magnitudes are compared as bits: NaN is above infinity, infinity above all numbers.
HWY_INLINE hn::Vec<I32> magnitude_bits(Floats x) { return hn::BitCast(I32(), hn::Abs(x)); }

template <class T>
HWY_INLINE uint32_t amax_run_of(const T* x, int64_t n) {
  hn::Vec<I32> most = hn::Zero(I32());
  for_lanes(n, [&](int64_t i, auto lanes)
                   HWY_ATTR { most = hn::Max(most, magnitude_bits(load(x + i, lanes))); });
  return static_cast<uint32_t>(hn::GetLane(hn::MaxOfLanes(I32(), most)));
}

template <class T>
HWY_INLINE void amax_each_of(const T* x, int64_t n, float* amax) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    const auto most =
        hn::Max(magnitude_bits(load(x + i, lanes)), hn::BitCast(I32(), load(amax + i, lanes)));
    store(hn::BitCast(F32(), most), amax + i, lanes);
  });
}

// The scale of lane i is scales[i * step], step 0 or 1.
template <int step>
HWY_INLINE Floats scale_lanes(const float* scales, int64_t i, AllLanes lanes) {
  if constexpr (step == 0) return set(*scales);
  return load(scales + i, lanes);
}
template <int step>
HWY_INLINE Floats scale_lanes(const float* scales, int64_t i, FirstLanes lanes) {
  if constexpr (step == 0) return set(*scales);
  return load(scales + i, lanes);
}

template <class Format, int step, class T>
HWY_INLINE void encode_loop(const T* x, int64_t n, const float* scales, uint8_t* codes) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    const Floats ratio = hn::Div(load(x + i, lanes), scale_lanes<step>(scales, i, lanes));
    store_codes(encode_lanes<Format>(ratio), codes + i, lanes);
  });
}
template <class Format, int step, class T>
HWY_INLINE void decode_loop(const uint8_t* codes, int64_t n, const float* scales, T* out) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    const Floats value = decode_lanes<Format>(load_codes(codes + i, lanes));
    store(hn::Mul(value, scale_lanes<step>(scales, i, lanes)), out + i, lanes);
  });
}

template <class T>
HWY_INLINE void encode_of(const T* x, const CodeRow& row, uint8_t* codes) {
  if (row.e5m2) {
    row.each ? encode_loop<E5M2, 1>(x, row.n, row.scales, codes)
             : encode_loop<E5M2, 0>(x, row.n, row.scales, codes);
  } else {
    row.each ? encode_loop<E4M3, 1>(x, row.n, row.scales, codes)
             : encode_loop<E4M3, 0>(x, row.n, row.scales, codes);
  }
}
template <class T>
HWY_INLINE void decode_of(const uint8_t* codes, const CodeRow& row, T* out) {
  if (row.e5m2) {
    row.each ? decode_loop<E5M2, 1>(codes, row.n, row.scales, out)
             : decode_loop<E5M2, 0>(codes, row.n, row.scales, out);
  } else {
    row.each ? decode_loop<E4M3, 1>(codes, row.n, row.scales, out)
             : decode_loop<E4M3, 0>(codes, row.n, row.scales, out);
  }
}

uint32_t amax_run_f32(const float* x, int64_t n) { return amax_run_of(x, n); }
uint32_t amax_run_bf16(const BFloat16* x, int64_t n) { return amax_run_of(x, n); }
void amax_each_f32(const float* x, int64_t n, float* amax) { amax_each_of(x, n, amax); }
void amax_each_bf16(const BFloat16* x, int64_t n, float* amax) { amax_each_of(x, n, amax); }
void encode_f32(const float* x, const CodeRow& row, uint8_t* codes) { encode_of(x, row, codes); }
void encode_bf16(const BFloat16* x, const CodeRow& row, uint8_t* codes) {
  encode_of(x, row, codes);
}
void decode_f32(const uint8_t* codes, const CodeRow& row, float* out) {
  decode_of(codes, row, out);
}
void decode_bf16(const uint8_t* codes, const CodeRow& row, BFloat16* out) {
  decode_of(codes, row, out);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(amax_run_f32);
HWY_EXPORT(amax_run_bf16);
HWY_EXPORT(amax_each_f32);
HWY_EXPORT(amax_each_bf16);
HWY_EXPORT(encode_f32);
HWY_EXPORT(encode_bf16);
HWY_EXPORT(decode_f32);
HWY_EXPORT(decode_bf16);

float amax_run(const float* x, int64_t n) {
  return std::bit_cast<float>(HWY_DYNAMIC_DISPATCH(amax_run_f32)(x, n));
}
float amax_run(const BFloat16* x, int64_t n) {
  return std::bit_cast<float>(HWY_DYNAMIC_DISPATCH(amax_run_bf16)(x, n));
}
void amax_each(const float* x, int64_t n, float* amax) {
  HWY_DYNAMIC_DISPATCH(amax_each_f32)(x, n, amax);
}
void amax_each(const BFloat16* x, int64_t n, float* amax) {
  HWY_DYNAMIC_DISPATCH(amax_each_bf16)(x, n, amax);
}
void encode_row(const float* x, const CodeRow& row, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_f32)(x, row, codes);
}
void encode_row(const BFloat16* x, const CodeRow& row, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_bf16)(x, row, codes);
}
void decode_row(const uint8_t* codes, const CodeRow& row, float* out) {
  HWY_DYNAMIC_DISPATCH(decode_f32)(codes, row, out);
}
void decode_row(const uint8_t* codes, const CodeRow& row, BFloat16* out) {
  HWY_DYNAMIC_DISPATCH(decode_bf16)(codes, row, out);
}

int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
bool is_e5m2(const Fp8Encoding& e) { return e.format == Dtype::f8e5m2; }
uint8_t* codes_of(const Tensor& codes) { return reinterpret_cast<uint8_t*>(codes.raw()); }

// A part of a tensor as tall as one tile, whose columns are whole tiles or reach the edge.
template <class T>
struct Band {
  const T* x;
  int64_t x_stride, rows, columns;
  uint8_t* codes;
  int64_t codes_stride;
  float* scales;
};

template <class T>
void quantise_band(const Band<T>& b, const Fp8Encoding& e) {
  const float largest = facts_of(e.format).largest;
  const bool each = e.tile.columns == 1;
  const int64_t tiles = ceiling(b.columns, e.tile.columns);
  const auto width = [&](int64_t t) {
    return std::min(e.tile.columns, b.columns - t * e.tile.columns);
  };
  std::fill(b.scales, b.scales + tiles, 0.0f);
  for (int64_t r = 0; r < b.rows; ++r) {
    const T* x = b.x + r * b.x_stride;
    if (each) {
      amax_each(x, b.columns, b.scales);
      continue;
    }
    for (int64_t t = 0; t < tiles; ++t) {
      const float here = amax_run(x + t * e.tile.columns, width(t));
      if (!(b.scales[t] >= here)) b.scales[t] = std::isnan(b.scales[t]) ? b.scales[t] : here;
    }
  }
  for (int64_t t = 0; t < tiles; ++t) b.scales[t] = scale_of(b.scales[t], e.scales, largest);
  for (int64_t r = 0; r < b.rows; ++r) {
    const T* x = b.x + r * b.x_stride;
    uint8_t* codes = b.codes + r * b.codes_stride;
    if (each) {
      encode_row(x, {b.columns, b.scales, true, is_e5m2(e)}, codes);
      continue;
    }
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t at = t * e.tile.columns;
      encode_row(x + at, {width(t), b.scales + t, false, is_e5m2(e)}, codes + at);
    }
  }
}

template <class T>
void quantise_whole(Device& device, const Tensor& x, const Fp8Tensor& out) {
  const int64_t n = x.elements(), piece = 1 << 14;
  std::vector<float> parts(static_cast<size_t>(ceiling(n, piece)), 0.0f);
  parallel_for(device, n, piece, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += piece) {
      parts[static_cast<size_t>(at / piece)] =
          amax_run(x.data<T>() + at, std::min(piece, end - at));
    }
  });
  float amax = 0;
  for (float part : parts) {
    if (!(amax >= part)) amax = std::isnan(amax) ? amax : part;
  }
  float* scale = out.scales.data<float>();
  *scale = scale_of(amax, out.encoding.scales, facts_of(out.encoding.format).largest);
  parallel_for(device, n, piece, [&](int64_t begin, int64_t end) {
    encode_row(x.data<T>() + begin, {end - begin, scale, false, is_e5m2(out.encoding)},
               codes_of(out.codes) + begin);
  });
}

// body(first row, rows, index) of each band of the tensor.
void for_bands(Device& device, const Tensor& x, int64_t height,
               const std::function<void(int64_t row, int64_t rows)>& body) {
  const int64_t bands = ceiling(x.rows(), height);
  parallel_for(device, bands, rows_a_range(x.columns() * height), [&](int64_t begin, int64_t end) {
    for (int64_t band = begin; band < end; ++band) {
      const int64_t row = band * height;
      body(row, std::min(height, x.rows() - row));
    }
  });
}

template <class T>
void quantise_tiles(Device& device, const Tensor& x, const Fp8Tensor& out) {
  const Fp8Encoding& e = out.encoding;
  const int64_t columns = x.columns();
  for_bands(device, x, e.tile.rows, [&](int64_t row, int64_t rows) {
    quantise_band<T>(
        {.x = x.data<T>() + row * columns,
         .x_stride = columns,
         .rows = rows,
         .columns = columns,
         .codes = codes_of(out.codes) + row * columns,
         .codes_stride = columns,
         .scales = out.scales.data<float>() + row / e.tile.rows * out.scales.columns()},
        e);
  });
}

// Decodes `count` elements of row `row` from column `column` on; `scaled` = false: the codes alone.
template <class T>
void decode_part(const Fp8Tensor& x, int64_t row, int64_t column, int64_t count, bool scaled,
                 T* out) {
  static constexpr float one = 1.0f;
  const Fp8Tile& tile = x.encoding.tile;
  const bool e5m2 = is_e5m2(x.encoding);
  const uint8_t* codes = codes_of(x.codes) + row * x.codes.columns();
  const float* scales = x.scales.data<float>();
  if (!scaled || tile.whole()) {
    decode_row(codes + column, {count, scaled ? scales : &one, false, e5m2}, out);
    return;
  }
  scales += row / tile.rows * x.scales.columns();
  if (tile.columns == 1) {
    decode_row(codes + column, {count, scales + column, true, e5m2}, out);
    return;
  }
  for (int64_t at = column; at < column + count;) {
    const int64_t t = at / tile.columns;
    const int64_t end = std::min((t + 1) * tile.columns, column + count);
    decode_row(codes + at, {end - at, scales + t, false, e5m2}, out + (at - column));
    at = end;
  }
}

// In pieces of columns that stay in the second-level cache.
void requantise_tiles(Device& device, const Fp8Tensor& x, const Fp8Tensor& out) {
  const Fp8Encoding& e = out.encoding;
  const int64_t columns = x.codes.columns();
  const int64_t piece = e.tile.columns <= 256 && 256 % e.tile.columns == 0 ? 256 : columns;
  for_bands(device, x.codes, e.tile.rows, [&](int64_t row, int64_t rows) {
    std::vector<float> values(static_cast<size_t>(rows * piece));
    for (int64_t at = 0; at < columns; at += piece) {
      const int64_t width = std::min(piece, columns - at);
      for (int64_t r = 0; r < rows; ++r) {
        decode_part(x, row + r, at, width, true, values.data() + r * piece);
      }
      quantise_band<float>(
          {.x = values.data(),
           .x_stride = piece,
           .rows = rows,
           .columns = width,
           .codes = codes_of(out.codes) + row * columns + at,
           .codes_stride = columns,
           .scales = out.scales.data<float>() + row / e.tile.rows * out.scales.columns() +
                     at / e.tile.columns},
          e);
    }
  });
}

void decode_all(Stream& stream, const Tensor& into, const Fp8Tensor& from, bool scaled) {
  if (into.shape() != from.codes.shape()) {
    fail(cat("codes ", from.codes.text(), " do not fit ", into.text()));
  }
  stream.run([&device = stream.device(), x = from, out = into, scaled] {
    for_bands(device, out, 1, [&](int64_t row, int64_t) {
      const int64_t n = out.columns();
      out.dtype() == Dtype::bf16 ? decode_part(x, row, 0, n, scaled, out.data<BFloat16>() + row * n)
                                 : decode_part(x, row, 0, n, scaled, out.data<float>() + row * n);
    });
  });
}

}  // namespace

float scale_of(float amax, ScaleKind kind, float largest) {
  float scale = amax / largest;
  if (std::isnan(scale) || std::isinf(scale)) return std::numeric_limits<float>::quiet_NaN();
  if (scale <= smallest_scale) return smallest_scale;
  if (kind == ScaleKind::power_of_two) {
    const uint32_t bits = std::bit_cast<uint32_t>(scale);
    scale = std::bit_cast<float>((bits + 0x7fffffu) & 0xff800000u);
  }
  return scale;
}

Shape shape_of_scales(const Shape& values, const Fp8Tile& tile) {
  if (tile.whole()) return {1, 1};
  return {ceiling(values.rows(), tile.rows), ceiling(values.columns(), tile.columns)};
}

Fp8Tensor fp8_room(Device& device, const Shape& shape, const Fp8Encoding& e, MemoryKind kind) {
  facts_of(e.format);
  if ((e.tile.rows == 0) != (e.tile.columns == 0) || e.tile.rows < 0 || e.tile.columns < 0) {
    fail(cat("tiles of ", e.tile.rows, " x ", e.tile.columns, ": both are 0 or both above 0"));
  }
  return {.codes = Tensor(device, shape, e.format, kind),
          .scales = Tensor(device, shape_of_scales(shape, e.tile), Dtype::f32, kind),
          .encoding = e};
}

void quantise_into(Stream& stream, const Fp8Tensor& into, const Tensor& from) {
  if (from.dtype() != Dtype::f32 && from.dtype() != Dtype::bf16) {
    fail(cat("only f32 and bf16 are quantised, not ", from.text()));
  }
  stream.run([&device = stream.device(), x = from, out = into] {
    const bool narrow = x.dtype() == Dtype::bf16;
    if (out.encoding.tile.whole()) {
      narrow ? quantise_whole<BFloat16>(device, x, out) : quantise_whole<float>(device, x, out);
    } else {
      narrow ? quantise_tiles<BFloat16>(device, x, out) : quantise_tiles<float>(device, x, out);
    }
  });
}

Fp8Tensor quantise(Stream& stream, const Tensor& x, const Fp8Encoding& encoding, MemoryKind kind) {
  Fp8Tensor out = fp8_room(stream.device(), x.shape(), encoding, kind);
  quantise_into(stream, out, x);
  return out;
}

void requantise_into(Stream& stream, const Fp8Tensor& into, const Fp8Tensor& from) {
  if (into.encoding.tile.whole()) {
    quantise_into(stream, into, dequantise(stream, from, Dtype::f32));
  } else {
    stream.run(
        [&device = stream.device(), x = from, out = into] { requantise_tiles(device, x, out); });
  }
}

Fp8Tensor requantise(Stream& stream, const Fp8Tensor& x, const Fp8Encoding& encoding,
                     MemoryKind kind) {
  Fp8Tensor out = fp8_room(stream.device(), x.codes.shape(), encoding, kind);
  requantise_into(stream, out, x);
  return out;
}

void dequantise_into(Stream& stream, const Tensor& out, const Fp8Tensor& x) {
  decode_all(stream, out, x, true);
}

Tensor dequantise(Stream& stream, const Fp8Tensor& x, Dtype to, MemoryKind kind) {
  Tensor out(stream.device(), x.codes.shape(), to, kind);
  dequantise_into(stream, out, x);
  return out;
}

Tensor widen(Stream& stream, const Fp8Tensor& x, MemoryKind kind) {
  Tensor out(stream.device(), x.codes.shape(), Dtype::bf16, kind);
  decode_all(stream, out, x, false);
  return out;
}

}  // namespace shoestring
#endif  // HWY_ONCE
