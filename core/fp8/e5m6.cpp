#include "core/fp8/e5m6.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/fp8/quantise.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/fp8/e5m6.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/fp8/codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void codes_of(const T* x, int64_t n, float scale, uint32_t* codes) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    const Bits code = encode_lanes<E5M6>(hn::Div(load(x + i, lanes), set(scale)));
    store(hn::BitCast(F32(), code), reinterpret_cast<float*>(codes + i), lanes);
  });
}
template <class T>
HWY_INLINE void values_of(const uint32_t* codes, int64_t n, float scale, T* out) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    const Bits code = hn::BitCast(U32(), load(reinterpret_cast<const float*>(codes + i), lanes));
    store(hn::Mul(decode_lanes<E5M6>(code), set(scale)), out + i, lanes);
  });
}

void encode_f32(const float* x, int64_t n, float s, uint32_t* c) { codes_of(x, n, s, c); }
void encode_bf16(const BFloat16* x, int64_t n, float s, uint32_t* c) { codes_of(x, n, s, c); }
void decode_f32(const uint32_t* c, int64_t n, float s, float* x) { values_of(c, n, s, x); }
void decode_bf16(const uint32_t* c, int64_t n, float s, BFloat16* x) { values_of(c, n, s, x); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(encode_f32);
HWY_EXPORT(encode_bf16);
HWY_EXPORT(decode_f32);
HWY_EXPORT(decode_bf16);

constexpr int64_t tile = 128;

void encode_tile(const float* x, int64_t n, float scale, uint32_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_f32)(x, n, scale, codes);
}
void encode_tile(const BFloat16* x, int64_t n, float scale, uint32_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_bf16)(x, n, scale, codes);
}
void decode_tile(const uint32_t* codes, int64_t n, float scale, float* x) {
  HWY_DYNAMIC_DISPATCH(decode_f32)(codes, n, scale, x);
}
void decode_tile(const uint32_t* codes, int64_t n, float scale, BFloat16* x) {
  HWY_DYNAMIC_DISPATCH(decode_bf16)(codes, n, scale, x);
}

int64_t bytes_of_row(int64_t columns) { return (columns * 12 + 7) / 8; }

// Two codes a and b: a's low byte, b's low half above a's high half, b's high byte.
void pack(const uint32_t* codes, int64_t n, uint8_t* to) {
  for (int64_t i = 0; i < n; i += 2, to += 3) {
    const uint32_t a = codes[i], b = i + 1 < n ? codes[i + 1] : 0;
    to[0] = static_cast<uint8_t>(a);
    to[1] = static_cast<uint8_t>(a >> 8 | (b & 0xf) << 4);
    if (i + 1 < n) to[2] = static_cast<uint8_t>(b >> 4);
  }
}
void unpack(const uint8_t* from, int64_t n, uint32_t* codes) {
  for (int64_t i = 0; i < n; i += 2, from += 3) {
    codes[i] = from[0] | (uint32_t{from[1]} & 0xf) << 8;
    if (i + 1 < n) codes[i + 1] = uint32_t{from[1]} >> 4 | uint32_t{from[2]} << 4;
  }
}

template <class T>
float largest_of(const T* x, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float a = std::fabs(static_cast<float>(x[i]));
    if (!(most >= a)) most = std::isnan(most) ? most : a;
  }
  return most;
}

template <class T>
void store_row(const T* x, int64_t columns, uint8_t* codes, float* scales) {
  uint32_t wide[tile];
  for (int64_t at = 0; at < columns; at += tile, codes += tile * 3 / 2) {
    const int64_t n = std::min(tile, columns - at);
    scales[at / tile] =
        scale_of(largest_of(x + at, n), ScaleKind::power_of_two, e5m6_facts.largest);
    encode_tile(x + at, n, scales[at / tile], wide);
    pack(wide, n, codes);
  }
}

template <class T>
void load_row(const uint8_t* codes, const float* scales, int64_t columns, T* x) {
  uint32_t wide[tile];
  for (int64_t at = 0; at < columns; at += tile, codes += tile * 3 / 2) {
    const int64_t n = std::min(tile, columns - at);
    unpack(codes, n, wide);
    decode_tile(wide, n, scales[at / tile], x + at);
  }
}

void for_rows(Device& device, int64_t rows, int64_t columns,
              const std::function<void(int64_t row)>& body) {
  parallel_for(device, rows, rows_a_range(columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

E5M6Tensor store_e5m6(Stream& stream, const Tensor& x, MemoryKind kind) {
  if (x.dtype() != Dtype::f32 && x.dtype() != Dtype::bf16) {
    fail(cat("only f32 and bf16 are stored as E5M6, not ", x.text()));
  }
  const int64_t columns = x.columns(), bytes = bytes_of_row(columns);
  E5M6Tensor out = {
      .codes = Tensor(stream.device(), {x.rows(), bytes}, Dtype::u8, kind),
      .scales = Tensor(stream.device(), {x.rows(), (columns + tile - 1) / tile}, Dtype::f32, kind)};
  stream.run([&device = stream.device(), x, out, columns, bytes] {
    for_rows(device, x.rows(), columns, [&](int64_t row) {
      uint8_t* codes = out.codes.data<uint8_t>() + row * bytes;
      float* scales = out.scales.data<float>() + row * out.scales.columns();
      x.dtype() == Dtype::bf16
          ? store_row(x.data<BFloat16>() + row * columns, columns, codes, scales)
          : store_row(x.data<float>() + row * columns, columns, codes, scales);
    });
  });
  return out;
}

Tensor load_e5m6(Stream& stream, const E5M6Tensor& x, int64_t columns, Dtype to, MemoryKind kind) {
  if (x.codes.columns() != bytes_of_row(columns)) {
    fail(cat("rows of ", x.codes.columns(), " bytes do not hold ", columns, " E5M6 values"));
  }
  Tensor out(stream.device(), {x.codes.rows(), columns}, to, kind);
  stream.run([&device = stream.device(), x, out, columns] {
    for_rows(device, out.rows(), columns, [&](int64_t row) {
      const uint8_t* codes = x.codes.data<uint8_t>() + row * x.codes.columns();
      const float* scales = x.scales.data<float>() + row * x.scales.columns();
      out.dtype() == Dtype::bf16
          ? load_row(codes, scales, columns, out.data<BFloat16>() + row * columns)
          : load_row(codes, scales, columns, out.data<float>() + row * columns);
    });
  });
  return out;
}

}  // namespace shoestring
#endif  // HWY_ONCE
