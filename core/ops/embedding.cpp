#include "core/ops/embedding.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/embedding.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// to [width] = factor * from
template <class T>
HWY_INLINE void scale_row(const T* from, float factor, T* to, int64_t width) {
  for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
    store(hn::Mul(load(from + i, lanes), set(factor)), to + i, lanes);
  });
}

// sums [width] = sum of the rows of dx at `positions`, in their order.
template <class T>
HWY_INLINE void sum_rows(const T* dx, int64_t width, std::span<const int32_t> positions,
                         float* sums) {
  std::memset(sums, 0, static_cast<size_t>(width) * sizeof(float));
  for (int32_t position : positions) {
    const T* from = dx + position * width;
    for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
      store(hn::Add(load(sums + i, lanes), load(from + i, lanes)), sums + i, lanes);
    });
  }
}

// to [width] += factor * from
void add_scaled(const float* from, float factor, float* to, int64_t width) {
  for_lanes(width, [&](int64_t i, auto lanes) HWY_ATTR {
    const Floats scaled = hn::Mul(load(from + i, lanes), set(factor));
    store(hn::Add(load(to + i, lanes), scaled), to + i, lanes);
  });
}

void scale_f32(const float* from, float factor, float* to, int64_t width) {
  scale_row(from, factor, to, width);
}
void scale_bf16(const BFloat16* from, float factor, BFloat16* to, int64_t width) {
  scale_row(from, factor, to, width);
}
void sum_f32(const float* dx, int64_t width, std::span<const int32_t> positions, float* sums) {
  sum_rows(dx, width, positions, sums);
}
void sum_bf16(const BFloat16* dx, int64_t width, std::span<const int32_t> positions, float* sums) {
  sum_rows(dx, width, positions, sums);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(scale_f32);
HWY_EXPORT(scale_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);
HWY_EXPORT(add_scaled);

struct Lookup {
  Tensor tokens, weight, x;
  Embedding::Attributes attributes;
};

// Of a whole table all tokens are its own.
bool is_own(int64_t row, int64_t rows) { return row >= 0 && row < rows; }

void scale_one_row(const Lookup& a, int64_t position, int64_t token) {
  const int64_t width = a.x.columns(), to = position * width;
  const int64_t from = (token - a.attributes.first) * width;
  const double multiplier = a.attributes.multiplier;
  if (!is_own(token - a.attributes.first, a.weight.rows())) {
    const size_t size = static_cast<size_t>(width) * size_of(a.x.dtype());
    std::memset(a.x.raw() + static_cast<size_t>(position) * size, 0, size);
    return;
  }
  if (multiplier == 1) {
    const size_t size = size_of(a.x.dtype());
    std::memcpy(a.x.raw() + static_cast<size_t>(to) * size,
                a.weight.raw() + static_cast<size_t>(from) * size,
                static_cast<size_t>(width) * size);
    return;
  }
  const auto factor = static_cast<float>(multiplier);
  if (a.x.dtype() == Dtype::f32) {
    HWY_DYNAMIC_DISPATCH(scale_f32)
    (a.weight.data<float>() + from, factor, a.x.data<float>() + to, width);
  } else if (a.x.dtype() == Dtype::bf16) {
    HWY_DYNAMIC_DISPATCH(scale_bf16)
    (a.weight.data<BFloat16>() + from, factor, a.x.data<BFloat16>() + to, width);
  } else {
    for (int64_t i = 0; i < width; ++i) {
      a.x.data<double>()[to + i] = multiplier * a.weight.data<double>()[from + i];
    }
  }
}

void check_tokens(std::span<const int32_t> tokens, int64_t vocabulary) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      fail_data(cat("[embedding] token ", tokens[i], " at position ", i,
                    " is outside the vocabulary of ", vocabulary,
                    "; the token store and the model do not belong together"));
    }
  }
}

void forward_cpu(Stream& stream, const Lookup& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    const auto tokens = a.tokens.span<int32_t>();
    const int64_t vocabulary = a.attributes.vocabulary;
    check_tokens(tokens, vocabulary > 0 ? vocabulary : a.weight.rows());
    parallel_for(device, a.x.rows(), rows_a_range(a.x.columns()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        scale_one_row(a, i, tokens[static_cast<size_t>(i)]);
      }
    });
  });
}

struct Scatter {
  Tensor tokens, dx, dw;
  double multiplier;
  int64_t first;
};

// `positions` hold one token, whose row of dw (f32 or f64) is `to`.
template <class W>
void add_f64(const Scatter& a, std::span<const int32_t> positions, W* to) {
  const int64_t width = a.dx.columns();
  for (int64_t i = 0; i < width; ++i) {
    double sum = 0;
    for (int32_t p : positions) sum += a.dx.data<double>()[p * width + i];
    to[i] = static_cast<W>(to[i] + a.multiplier * sum);
  }
}

void add_token(const Scatter& a, std::span<const int32_t> positions, int64_t token, float* sums) {
  const int64_t width = a.dx.columns();
  if (a.dx.dtype() == Dtype::f64) {
    if (a.dw.dtype() == Dtype::f64)
      return add_f64(a, positions, a.dw.data<double>() + token * width);
    return add_f64(a, positions, a.dw.data<float>() + token * width);
  }
  if (a.dx.dtype() == Dtype::bf16) {
    HWY_DYNAMIC_DISPATCH(sum_bf16)(a.dx.data<BFloat16>(), width, positions, sums);
  } else {
    HWY_DYNAMIC_DISPATCH(sum_f32)(a.dx.data<float>(), width, positions, sums);
  }
  HWY_DYNAMIC_DISPATCH(add_scaled)
  (sums, static_cast<float>(a.multiplier), a.dw.data<float>() + token * width, width);
}

// Positions sorted by (token, position); a thread owns the tokens whose first position lies in its
// range.
void scatter_cpu(Stream& stream, const Scatter& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    const int32_t* tokens = a.tokens.data<int32_t>();
    const int64_t n = a.tokens.elements();
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t i, int32_t j) { return tokens[i] < tokens[j]; });
    const auto token_at = [&](int64_t i) { return tokens[order[static_cast<size_t>(i)]]; };
    parallel_for(device, n, rows_a_range(a.dx.columns()), [&](int64_t begin, int64_t end) {
      std::vector<float> sums(static_cast<size_t>(a.dx.columns()));
      int64_t i = begin;
      while (i < end && i > 0 && token_at(i) == token_at(i - 1)) ++i;
      while (i < end) {
        int64_t last = i + 1;
        while (last < n && token_at(last) == token_at(i)) ++last;
        const int64_t row = token_at(i) - a.first;
        if (is_own(row, a.dw.rows())) {
          add_token(a, {order.data() + i, static_cast<size_t>(last - i)}, row, sums.data());
        }
        i = last;
      }
    });
  });
}

}  // namespace

Tensors<1> Embedding::forward(Stream& stream, const Attributes& attributes,
                              const Tensors<1>& inputs, const Tensors<1>& weights, InputSaved&,
                              WeightSaved& saved) {
  const Tensor &tokens = inputs[0], &weight = weights[0];
  check_tensor(name, "tokens", tokens, {tokens.elements()}, Dtype::i32);
  Tensor x(stream.device(), {tokens.elements(), weight.columns()}, weight.dtype());
  on(stream, name, forward_cpu, nullptr, Lookup{tokens, weight, x, attributes});
  saved = {.tokens = tokens};
  return {x};
}

Tensors<1> Embedding::grad_input(Stream&, const Attributes&, const InputSaved&, const Tensors<1>&,
                                 const Tensors<1>&) {
  return {};
}

void Embedding::grad_weight(Stream& stream, const Attributes& attributes, const WeightSaved& saved,
                            const Tensors<1>& dy, const Tensors<1>& dw) {
  if (!dy[0]) return;
  check_tensor(name, "dw", dw[0], {dw[0].rows(), dy[0].columns()}, dw[0].dtype());
  check_tensor(name, "dy", dy[0], {saved.tokens.elements(), dw[0].columns()}, dy[0].dtype());
  on(stream, name, scatter_cpu, nullptr,
     Scatter{saved.tokens, dy[0], dw[0], attributes.multiplier, attributes.first});
}

}  // namespace shoestring
#endif  // HWY_ONCE
