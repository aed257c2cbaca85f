#include "core/ops/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "core/check.h"
#include "core/ops/rope_reference.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/rope.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE void store_pairs(Floats a, Floats b, float* to, AllLanes) {
  hn::StoreInterleaved2(a, b, F32(), to);
}
// A bf16 pair is 32 bits: a in the lower half, b in the upper.
HWY_INLINE void store_pairs(Floats a, Floats b, BFloat16* to, AllLanes) {
  const auto pair = hn::Or(hn::ShiftRight<16>(bf16_bits(a)), bf16_bits(b));
  hn::StoreU(pair, U32(), reinterpret_cast<uint32_t*>(to));
}
template <class T>
HWY_INLINE void store_pairs(Floats a, Floats b, T* to, FirstLanes lanes) {
  alignas(64) T whole[2 * hn::MaxLanes(F32())];
  store_pairs(a, b, whole, AllLanes{});
  std::memcpy(to, whole, static_cast<size_t>(lanes.count) * 2 * sizeof(T));
}

HWY_INLINE void load_pairs(const float* from, Floats& a, Floats& b, AllLanes) {
  hn::LoadInterleaved2(F32(), from, a, b);
}
HWY_INLINE void load_pairs(const BFloat16* from, Floats& a, Floats& b, AllLanes) {
  const auto pair = hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(from));
  a = hn::BitCast(F32(), hn::ShiftLeft<16>(pair));
  b = hn::BitCast(F32(), hn::And(pair, hn::Set(U32(), 0xffff0000u)));
}
template <class T>
HWY_INLINE void load_pairs(const T* from, Floats& a, Floats& b, FirstLanes lanes) {
  alignas(64) T whole[2 * hn::MaxLanes(F32())] = {};
  std::memcpy(whole, from, static_cast<size_t>(lanes.count) * 2 * sizeof(T));
  load_pairs(whole, a, b, AllLanes{});
}

// The rotated dims of one head.
template <class T>
HWY_INLINE void rotate(const reference::RotateHead<float>& h, const T* x, T* y) {
  const int64_t half = h.rotated / 2;
  const Floats direction = set(static_cast<float>(h.direction));
  for_lanes(half, [&](int64_t j, auto lanes) HWY_ATTR {
    const Floats c = load(h.cos + j, lanes), s = hn::Mul(load(h.sin + j, lanes), direction);
    Floats a, b;
    if (h.interleaved) {
      load_pairs(x + 2 * j, a, b, lanes);
    } else {
      a = load(x + j, lanes);
      b = load(x + half + j, lanes);
    }
    const Floats turned_a = hn::NegMulAdd(b, s, hn::Mul(a, c));
    const Floats turned_b = hn::MulAdd(a, s, hn::Mul(b, c));
    if (h.interleaved) {
      store_pairs(turned_a, turned_b, y + 2 * j, lanes);
    } else {
      store(turned_a, y + j, lanes);
      store(turned_b, y + half + j, lanes);
    }
  });
}

template <class T>
HWY_INLINE void rotate_row(const RotateRows& a, int64_t row) {
  const Rope::Attributes& rope = a.rope;
  const int64_t half = rope.rotated / 2;
  const int64_t at = int64_t{a.positions.data<int32_t>()[row]} * half;
  const reference::RotateHead<float> head{.head_dim = rope.head_dim,
                                          .rotated = rope.rotated,
                                          .first = rope.first,
                                          .interleaved = rope.interleaved,
                                          .direction = a.direction,
                                          .x = nullptr,
                                          .cos = rope.table.cos.data<float>() + at,
                                          .sin = rope.table.sin.data<float>() + at};
  const T* x = a.from.data<T>() + row * a.from.columns() + a.from_column;
  T* y = a.to.data<T>() + row * a.to.columns() + a.to_column;
  const int64_t after = rope.first + rope.rotated;
  for (int64_t h = 0; h < rope.heads; ++h, x += rope.head_dim, y += rope.head_dim) {
    if (rope.first > 0) std::memcpy(y, x, static_cast<size_t>(rope.first) * sizeof(T));
    rotate(head, x + rope.first, y + rope.first);
    if (after < rope.head_dim) {
      std::memcpy(y + after, x + after, static_cast<size_t>(rope.head_dim - after) * sizeof(T));
    }
  }
}

void rotate_f32(const RotateRows& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) rotate_row<float>(a, row);
}
void rotate_bf16(const RotateRows& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) rotate_row<BFloat16>(a, row);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(rotate_f32);
HWY_EXPORT(rotate_bf16);

void rotate_f64(const RotateRows& a, int64_t begin, int64_t end) {
  const Rope::Attributes& rope = a.rope;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = int64_t{a.positions.data<int32_t>()[row]} * (rope.rotated / 2);
    for (int64_t h = 0; h < rope.heads; ++h) {
      const int64_t column = h * rope.head_dim;
      reference::rotate_head<double>(
          {.head_dim = rope.head_dim,
           .rotated = rope.rotated,
           .first = rope.first,
           .interleaved = rope.interleaved,
           .direction = a.direction,
           .x = a.from.data<double>() + row * a.from.columns() + a.from_column + column,
           .cos = rope.table.cos.data<float>() + at,
           .sin = rope.table.sin.data<float>() + at,
           .y = a.to.data<double>() + row * a.to.columns() + a.to_column + column});
    }
  }
}

void copy_rows(const RotateRows& a, int64_t begin, int64_t end) {
  const size_t size = size_of(a.from.dtype());
  const auto offset = [&](const Tensor& t, int64_t row, int64_t column) {
    return t.raw() + static_cast<size_t>(row * t.columns() + column) * size;
  };
  const size_t bytes = static_cast<size_t>(a.rope.heads * a.rope.head_dim) * size;
  for (int64_t row = begin; row < end; ++row) {
    std::memcpy(offset(a.to, row, a.to_column), offset(a.from, row, a.from_column), bytes);
  }
}

double llama3_frequency(const RopeConfig& c, double w) {
  const auto length = static_cast<double>(c.original_max_positions);
  const double wavelength = 2 * std::numbers::pi / w;
  if (wavelength < length / c.high_freq_factor) return w;
  if (wavelength > length / c.low_freq_factor) return w / c.factor;
  const double smooth =
      (length / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
  return (1 - smooth) * w / c.factor + smooth * w;
}

// The dim whose pair turns `turns` times within the original length.
double yarn_dim(const RopeConfig& c, int64_t rotated, double turns) {
  const auto length = static_cast<double>(c.original_max_positions);
  return static_cast<double>(rotated) * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(c.theta));
}

void scale_yarn(const RopeConfig& c, int64_t rotated, std::vector<double>& w) {
  const double low = std::max(std::floor(yarn_dim(c, rotated, c.beta_fast)), 0.0);
  double high =
      std::min(std::ceil(yarn_dim(c, rotated, c.beta_slow)), static_cast<double>(rotated - 1));
  if (low == high) high += 0.001;
  for (size_t j = 0; j < w.size(); ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    w[j] = w[j] / c.factor * ramp + w[j] * (1 - ramp);
  }
}

void check_heads(const Rope::Attributes& a, const Tensor& x) {
  if (a.rotated % 2 != 0 || a.first < 0 || a.first + a.rotated > a.head_dim ||
      x.columns() != a.heads * a.head_dim) {
    fail(cat("[rope] x is ", x.text(), ", but ", a.heads, " heads of ", a.head_dim,
             " dims, of which ", a.rotated, " from ", a.first, " on turn, do not fit it"));
  }
}

void rope_cpu(Stream& stream, const RotateRows& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    check_positions(Rope::name, a.positions, a.rope.table);
    parallel_for(device, a.to.rows(), rows_a_range(a.to.columns()),
                 [&](int64_t begin, int64_t end) { rotate_rows(a, begin, end); });
  });
}

Tensor rotated(Stream& stream, const Rope::Attributes& attributes, RotateRows a) {
  check_heads(attributes, a.from);
  check_tensor(Rope::name, "positions", a.positions, {a.from.rows()}, Dtype::i32);
  a.to = Tensor(stream.device(), a.from.shape(), a.from.dtype());
  a.rope = attributes;
  on(stream, Rope::name, rope_cpu, nullptr, a);
  return a.to;
}

}  // namespace

void RopeConfig::validate(Complaints& c) const {
  if (scaling == "llama3" && high_freq_factor <= low_freq_factor) {
    c.add("high_freq_factor", cat("must be above low_freq_factor, which is ", low_freq_factor));
  }
  if (scaling == "llama3" && low_freq_factor <= 0) c.add("low_freq_factor", "must be above 0");
  if (scaling == "yarn" && (beta_slow <= 0 || beta_fast <= beta_slow)) {
    c.add("beta_fast", cat("must be above beta_slow, which must be above 0 and is ", beta_slow));
  }
  if (scaling == "none" && factor != 1) {
    c.add("factor", cat("is ", factor, " but scaling is \"none\", which stretches nothing"));
  }
  if (scaling == "yarn" && theta <= 1) c.add("theta", "must be above 1 for yarn");
}

std::vector<double> rope_frequencies(const RopeConfig& config, int64_t rotated) {
  std::vector<double> w(static_cast<size_t>(rotated / 2));
  for (size_t j = 0; j < w.size(); ++j) {
    const double exponent = -2 * static_cast<double>(j) / static_cast<double>(rotated);
    w[j] = std::pow(config.theta, exponent);
    if (config.scaling == "linear") w[j] /= config.factor;
    if (config.scaling == "llama3") w[j] = llama3_frequency(config, w[j]);
  }
  if (config.scaling == "yarn") scale_yarn(config, rotated, w);
  return w;
}

double rope_amplitude(const RopeConfig& config) {
  if (config.scaling != "yarn") return 1;
  if (config.attention_factor > 0) return config.attention_factor;
  if (config.factor <= 1) return 1;
  const auto scale = [&](double m) { return 0.1 * m * std::log(config.factor) + 1; };
  if (config.mscale > 0 && config.mscale_all_dim > 0) {
    return scale(config.mscale) / scale(config.mscale_all_dim);
  }
  return scale(1);
}

RopeTable make_rope_table(Device& device, const RopeConfig& config, int64_t rotated,
                          int64_t max_positions) {
  if (rotated <= 0 || rotated % 2 != 0) {
    fail_usage(cat("rope needs an even number of rotated dims in a head, not ", rotated));
  }
  const std::vector<double> w = rope_frequencies(config, rotated);
  const double amplitude = rope_amplitude(config);
  const Shape shape{max_positions, rotated / 2};
  RopeTable table{Tensor(device, shape, Dtype::f32, MemoryKind::other),
                  Tensor(device, shape, Dtype::f32, MemoryKind::other)};
  parallel_for(device, max_positions, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (size_t j = 0; j < w.size(); ++j) {
        const double angle = static_cast<double>(t) * w[j];
        const auto at = static_cast<size_t>(t) * w.size() + j;
        table.cos.data<float>()[at] = static_cast<float>(amplitude * std::cos(angle));
        table.sin.data<float>()[at] = static_cast<float>(amplitude * std::sin(angle));
      }
    }
  });
  return table;
}

void check_positions(std::string_view op, const Tensor& positions, const RopeTable& table) {
  const auto values = positions.span<int32_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= table.cos.rows()) {
      fail(cat("[", op, "] token ", i, " has position ", values[i], ", but the table ends at ",
               table.cos.rows()));
    }
  }
}

void rotate_rows(const RotateRows& a, int64_t begin, int64_t end) {
  if (!a.rope.table.cos) return copy_rows(a, begin, end);
  if (a.from.dtype() == Dtype::f64) return rotate_f64(a, begin, end);
  if (a.from.dtype() == Dtype::bf16) return HWY_DYNAMIC_DISPATCH(rotate_bf16)(a, begin, end);
  HWY_DYNAMIC_DISPATCH(rotate_f32)(a, begin, end);
}

Tensors<1> Rope::forward(Stream& stream, const Attributes& attributes, const Tensors<2>& inputs,
                         Saved& saved) {
  saved = {.positions = inputs[1]};
  return {rotated(stream, attributes, {.from = inputs[0], .positions = inputs[1]})};
}

Tensors<2> Rope::grad_input(Stream& stream, const Attributes& attributes, const Saved& saved,
                            const Tensors<1>& dy) {
  if (!dy[0]) return {};
  return {
      rotated(stream, attributes, {.from = dy[0], .positions = saved.positions, .direction = -1}),
      Tensor()};
}

}  // namespace shoestring
#endif  // HWY_ONCE
