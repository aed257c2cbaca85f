#include "core/ops/head_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/ops/head_loss_reference.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/head_loss.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

// Largest logit of a row, and log sum_v e^z_v. One pass over memory: blocks that fit the first
// cache are read once for their maximum and once more for the sum, which is rescaled when the
// maximum grows.
double log_sum_exp(const float* z, int64_t n, float* largest) {
  constexpr int64_t block = 1024;
  float most = -std::numeric_limits<float>::infinity();
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t size = std::min(block, n - begin);
    Floats high = set(most);
    int64_t i = 0;
    for (; i + lane_count() <= size; i += lane_count()) {
      high = hn::Max(high, load(z + begin + i, AllLanes{}));
    }
    float here = maximum(high);
    for (; i < size; ++i) here = std::max(here, z[begin + i]);
    if (here > most) {
      total *= std::exp(static_cast<double>(most) - static_cast<double>(here));
      most = here;
    }
    const Floats shift = set(most);
    Floats sums = set(0);
    for (i = 0; i + lane_count() <= size; i += lane_count()) {
      sums = hn::Add(sums, exp(hn::Sub(load(z + begin + i, AllLanes{}), shift)));
    }
    total += sum(sums);
    for (; i < size; ++i) total += std::exp(static_cast<double>(z[begin + i] - most));
  }
  *largest = most;
  return static_cast<double>(most) + std::log(total);
}

// dz = slope * e^(z - lse). dz may start where z starts: T is no wider than float.
template <class T>
HWY_INLINE void softmax_row(const float* z, int64_t n, float lse, float slope, T* dz) {
  const Floats shift = set(lse), factor = set(slope);
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    store(hn::Mul(factor, exp(hn::Sub(load(z + i, lanes), shift))), dz + i, lanes);
  });
}
void softmax_f32(const float* z, int64_t n, float lse, float slope, float* dz) {
  softmax_row(z, n, lse, slope, dz);
}
void softmax_bf16(const float* z, int64_t n, float lse, float slope, BFloat16* dz) {
  softmax_row(z, n, lse, slope, dz);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(log_sum_exp);
HWY_EXPORT(softmax_f32);
HWY_EXPORT(softmax_bf16);

struct TokenLoss {
  double loss = 0, penalty = 0;
  bool correct = false;
};

struct Work {
  HeadLoss::Attributes attributes;
  HeadLoss::Inputs inputs;
  Tensor dx, dw;  // empty: not wanted
  std::vector<TokenLoss>* tokens = nullptr;

  Dtype dtype() const { return inputs.x.dtype(); }
  bool gradients() const { return dx || dw; }
};

// The row's logits become their gradient, in the type of x, from the row's first byte on.
void differentiate_row(const Work& work, float* z, int64_t label, double lse) {
  const HeadLoss::Attributes& a = work.attributes;
  const int64_t n = work.inputs.weight.rows();
  const double loss = lse - static_cast<double>(z[label]), extra = 2 * a.z_coefficient * lse;
  const auto slope = static_cast<float>(a.loss_scale * (1 + extra));
  // 1 - p without cancellation.
  const auto at_label =
      static_cast<float>(a.loss_scale * (std::expm1(-loss) + extra * std::exp(-loss)));
  if (work.dtype() == Dtype::bf16) {
    auto* dz = reinterpret_cast<BFloat16*>(z);
    HWY_DYNAMIC_DISPATCH(softmax_bf16)(z, n, static_cast<float>(lse), slope, dz);
    dz[label] = BFloat16(at_label);
    return;
  }
  HWY_DYNAMIC_DISPATCH(softmax_f32)(z, n, static_cast<float>(lse), slope, z);
  z[label] = at_label;
}

TokenLoss row_f32(const Work& work, float* z, int64_t label) {
  float largest = 0;
  const double lse = HWY_DYNAMIC_DISPATCH(log_sum_exp)(z, work.inputs.weight.rows(), &largest);
  const TokenLoss token{.loss = lse - static_cast<double>(z[label]),
                        .penalty = work.attributes.z_coefficient * lse * lse,
                        .correct = z[label] >= largest};
  if (work.gradients()) differentiate_row(work, z, label, lse);
  return token;
}

TokenLoss row_f64(const Work& work, double* z, int64_t label) {
  const int64_t n = work.inputs.weight.rows();
  const HeadLoss::Attributes& a = work.attributes;
  const auto row = reference::loss_row(z, n, label, a.z_coefficient);
  const bool correct = z[label] >= *std::max_element(z, z + n);
  if (work.gradients()) {
    reference::loss_row_gradient({n, label, a.z_coefficient, a.loss_scale}, z);
  }
  return {row.loss, row.penalty, correct};
}

// Losses of the tokens from `first` on, whose logits these are; gradients in place.
void cross_entropy(Device& device, const Work& work, const Tensor& logits, int64_t first) {
  const int64_t vocabulary = logits.columns();
  const int32_t* labels = work.inputs.labels.data<int32_t>() + first;
  parallel_for(device, logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::byte* z = logits.raw() + static_cast<size_t>(row * vocabulary) * size_of(logits.dtype());
      const size_t bytes = static_cast<size_t>(vocabulary) * size_of(logits.dtype());
      if (labels[row] < 0) {
        if (work.gradients()) std::fill(z, z + bytes, std::byte{0});
        continue;
      }
      (*work.tokens)[static_cast<size_t>(first + row)] =
          work.dtype() == Dtype::f64 ? row_f64(work, reinterpret_cast<double*>(z), labels[row])
                                     : row_f32(work, reinterpret_cast<float*>(z), labels[row]);
    }
  });
}

void run_chunk(Device& device, const Work& work, const Tensor& buffer, int64_t first,
               int64_t last) {
  const HeadLoss::Attributes& a = work.attributes;
  const Tensor x = work.inputs.x.rows(first, last);
  const Tensor logits = buffer.rows(0, last - first);
  const int32_t* labels = work.inputs.labels.data<int32_t>();
  if (std::all_of(labels + first, labels + last, [](int32_t label) { return label < 0; })) {
    if (work.dx) {
      const Tensor rows = work.dx.rows(first, last);
      std::fill(rows.raw(), rows.raw() + rows.bytes(), std::byte{0});
    }
    return;
  }
  matmul(device, logits, x, work.inputs.weight,
         {.transpose_b = true, .exact = a.exact, .alpha = a.logit_multiplier});
  cross_entropy(device, work, logits, first);
  // bf16 gradients lie in the first half of each f32 row.
  const int64_t stride = logits.columns() * (work.dtype() == Dtype::bf16 ? 2 : 1);
  const MatrixView dz(logits.raw(), work.dtype(), logits.rows(), logits.columns(), stride);
  if (work.dx) {
    matmul(device, work.dx.rows(first, last), dz, work.inputs.weight,
           {.exact = a.exact, .alpha = a.logit_multiplier});
  }
  if (work.dw) {
    matmul(
        device, work.dw, dz, x,
        {.transpose_a = true, .accumulate = true, .exact = a.exact, .alpha = a.logit_multiplier});
  }
}

void check_labels(const Work& work) {
  const int64_t vocabulary = work.inputs.weight.rows();
  const auto labels = work.inputs.labels.span<int32_t>();
  for (size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] < -1 || labels[t] >= vocabulary) {
      fail_data(cat("[head_loss] label ", labels[t], " of token ", t,
                    " is outside the vocabulary of ", vocabulary, " (-1 means no label)"));
    }
  }
}

void head_loss_cpu(Stream& stream, const Work& arguments) {
  stream.run([&stream, work = arguments]() mutable {
    Device& device = stream.device();
    check_labels(work);
    const Tensor& weight = work.inputs.weight;
    const int64_t rows = work.inputs.x.rows();
    const Dtype logit_type = work.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
    const int64_t step =
        std::min(rows, HeadLoss::chunk_rows(work.attributes, weight.rows(), work.dtype()));
    if (rows == 0) return;
    const Tensor total = work.dw;
    if (total && work.attributes.exact) {
      work.dw = Tensor::zeros(device, total.shape(), total.dtype(), MemoryKind::workspace);
    }
    Tensor logits(device, {step, weight.rows()}, logit_type, MemoryKind::workspace);
    for (int64_t first = 0; first < rows; first += step) {
      run_chunk(device, work, logits, first, std::min(first + step, rows));
    }
    if (total && work.attributes.exact) {
      Stream here = Stream::immediate(device);
      accumulate(here, total, work.dw);
    }
  });
}

void check_tensors(const HeadLoss::Inputs& in, const HeadLoss::Outputs& out) {
  const Shape& shape = in.weight.shape();
  check_tensor(HeadLoss::name, "x", in.x, {in.x.rows(), shape[1]}, in.weight.dtype());
  check_tensor(HeadLoss::name, "labels", in.labels, {in.x.rows()}, Dtype::i32);
  const Dtype sums = in.x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  if (out.dw) check_tensor(HeadLoss::name, "dw", *out.dw, shape, sums);
}

HeadLoss::Result summed(const std::vector<TokenLoss>& tokens, std::span<const int32_t> labels) {
  HeadLoss::Result result;
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (labels[t] < 0) continue;
    result.loss_sum += tokens[t].loss;
    result.penalty_sum += tokens[t].penalty;
    result.count += 1;
    result.correct += tokens[t].correct ? 1 : 0;
    if (result.first_not_finite < 0 && !std::isfinite(tokens[t].loss)) {
      result.first_not_finite = static_cast<int64_t>(t);
    }
  }
  return result;
}

}  // namespace

int64_t HeadLoss::chunk_rows(const Attributes& attributes, int64_t vocabulary, Dtype dtype) {
  const int64_t size = dtype == Dtype::f64 ? 8 : 4;
  const int64_t rows = attributes.chunk_bytes / std::max<int64_t>(1, vocabulary * size);
  return rows >= 64 ? rows / 64 * 64 : std::max<int64_t>(1, rows);
}

HeadLoss::Result HeadLoss::forward(Stream& stream, const Attributes& attributes,
                                   const Inputs& inputs, const Outputs& outputs) {
  check_tensors(inputs, outputs);
  const Tensor& x = inputs.x;
  std::vector<TokenLoss> tokens(static_cast<size_t>(x.rows()));
  if (outputs.dx) *outputs.dx = Tensor(stream.device(), x.shape(), x.dtype());
  on(stream, name, head_loss_cpu, nullptr,
     Work{attributes, inputs, outputs.dx ? *outputs.dx : Tensor(),
          outputs.dw ? *outputs.dw : Tensor(), &tokens});
  stream.synchronize();
  if (outputs.token_losses) {
    *outputs.token_losses = Tensor(stream.device(), {x.rows()}, Dtype::f32);
    std::transform(tokens.begin(), tokens.end(), outputs.token_losses->data<float>(),
                   [](const TokenLoss& token) { return static_cast<float>(token.loss); });
  }
  return summed(tokens, inputs.labels.span<int32_t>());
}

}  // namespace shoestring
#endif  // HWY_ONCE
