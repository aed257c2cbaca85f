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

constexpr int64_t block_columns = 1024;

// Of a row of logits: log sum_v e^z_v and the largest. One pass over memory: a block that fits the
// first cache is read for its maximum and again for its sum; the running sum is rescaled when the
// maximum grows. With `maxima` (one per block) e^(z - maximum so far) replaces z, for the gradient.
double log_sum_exp(float* z, int64_t n, float* maxima, float* largest) {
  float most = -std::numeric_limits<float>::infinity();
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += block_columns) {
    const int64_t size = std::min(block_columns, n - begin);
    float* here = z + begin;
    Floats high = set(most);
    int64_t i = 0;
    for (; i + lane_count() <= size; i += lane_count()) {
      high = hn::Max(high, load(here + i, AllLanes{}));
    }
    float maximum_here = maximum(high);
    for (; i < size; ++i) maximum_here = std::max(maximum_here, here[i]);
    if (maximum_here > most) {
      total *= std::exp(static_cast<double>(most) - static_cast<double>(maximum_here));
      most = maximum_here;
    }
    // Logits may be -infinity, whole blocks of them too.
    const float offset = std::isinf(most) ? 0.0f : most;
    const Floats shift = set(offset);
    Floats sums = set(0);
    for (i = 0; i + lane_count() <= size; i += lane_count()) {
      const Floats e = exp(hn::Sub(load(here + i, AllLanes{}), shift));
      if (maxima != nullptr) store(e, here + i, AllLanes{});
      sums = hn::Add(sums, e);
    }
    total += sum(sums);
    for (; i < size; ++i) {
      const float e = std::exp(here[i] - offset);
      if (maxima != nullptr) here[i] = e;
      total += e;
    }
    if (maxima != nullptr) maxima[begin / block_columns] = most;
  }
  *largest = most;
  return static_cast<double>(most) + std::log(total);
}

// The index of the largest of a row, the first of equal ones; NaN never is the largest.
int64_t first_largest(const float* z, int64_t n) {
  const I32 di;
  Floats most = set(-std::numeric_limits<float>::infinity());
  auto where = hn::Zero(di);
  int64_t i = 0;
  for (; i + lane_count() <= n; i += lane_count()) {
    const Floats here = load(z + i, AllLanes{});
    const auto above = hn::Gt(here, most);
    most = hn::IfThenElse(above, here, most);
    where = hn::IfThenElse(hn::RebindMask(di, above), hn::Iota(di, static_cast<int32_t>(i)), where);
  }
  alignas(64) float values[hn::MaxLanes(F32())];
  alignas(64) int32_t indices[hn::MaxLanes(F32())];
  hn::Store(most, F32(), values);
  hn::Store(where, di, indices);
  float largest = -std::numeric_limits<float>::infinity();
  int64_t best = 0;
  for (int64_t lane = 0; lane < lane_count(); ++lane) {
    if (values[lane] < largest || (values[lane] == largest && indices[lane] >= best)) continue;
    largest = values[lane];
    best = indices[lane];
  }
  for (; i < n; ++i) {
    if (z[i] > largest) largest = z[best = i];
  }
  return best;
}

// dz = factor * e. dz may start where e starts: T is no wider than float.
template <class T>
HWY_INLINE void scale_row(const float* e, int64_t n, float factor, T* dz) {
  for_lanes(n, [&](int64_t i, auto lanes)
                   HWY_ATTR { store(hn::Mul(set(factor), load(e + i, lanes)), dz + i, lanes); });
}
void scale_f32(const float* e, int64_t n, float factor, float* dz) { scale_row(e, n, factor, dz); }
void scale_bf16(const float* e, int64_t n, float factor, BFloat16* dz) {
  scale_row(e, n, factor, dz);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

// Columns that share one maximum, the same in every instruction set.
constexpr int64_t softmax_block = HWY_NAMESPACE::block_columns;

HWY_EXPORT(log_sum_exp);
HWY_EXPORT(first_largest);
HWY_EXPORT(scale_f32);
HWY_EXPORT(scale_bf16);

struct TokenLoss {
  double loss = 0, penalty = 0;
  bool correct = false;
  int32_t greedy = -1;
};

struct Work {
  HeadLoss::Attributes attributes;
  HeadLoss::Inputs inputs;
  Tensor dx, dw;  // empty: not wanted
  std::vector<TokenLoss>* tokens = nullptr;
  bool greedy = false;  // wanted

  Dtype dtype() const { return inputs.x.dtype(); }
  bool gradients() const { return dx || dw; }
};

// e^(z - maximum of its block) becomes the gradient of the logits, in the type of x, from the row's
// first byte on.
void differentiate_row(const Work& work, float* e, std::span<const float> maxima, double lse,
                       double factor) {
  const int64_t n = work.inputs.weight.rows();
  for (size_t block = 0; block < maxima.size(); ++block) {
    const int64_t begin = static_cast<int64_t>(block) * softmax_block;
    const int64_t size = std::min(softmax_block, n - begin);
    const double shift = static_cast<double>(maxima[block]) - lse;
    const auto scale = static_cast<float>(factor * std::exp(shift));
    if (work.dtype() == Dtype::bf16) {
      HWY_DYNAMIC_DISPATCH(scale_bf16)
      (e + begin, size, scale, reinterpret_cast<BFloat16*>(e) + begin);
    } else {
      HWY_DYNAMIC_DISPATCH(scale_f32)(e + begin, size, scale, e + begin);
    }
  }
}

TokenLoss row_f32(const Work& work, float* z, int64_t label, std::span<float> maxima) {
  const HeadLoss::Attributes& a = work.attributes;
  const float logit = z[label];
  const int64_t greedy =
      work.greedy ? HWY_DYNAMIC_DISPATCH(first_largest)(z, work.inputs.weight.rows()) : -1;
  float largest = 0;
  const double lse = HWY_DYNAMIC_DISPATCH(log_sum_exp)(
      z, work.inputs.weight.rows(), work.gradients() ? maxima.data() : nullptr, &largest);
  const double loss = lse - static_cast<double>(logit), extra = 2 * a.z_coefficient * lse;
  if (work.gradients()) {
    differentiate_row(work, z, maxima, lse, a.loss_scale * (1 + extra));
    // 1 - p without cancellation.
    const auto at_label =
        static_cast<float>(a.loss_scale * (std::expm1(-loss) + extra * std::exp(-loss)));
    if (work.dtype() == Dtype::bf16) {
      reinterpret_cast<BFloat16*>(z)[label] = BFloat16(at_label);
    } else {
      z[label] = at_label;
    }
  }
  return {.loss = loss,
          .penalty = a.z_coefficient * lse * lse,
          .correct = logit >= largest,
          .greedy = static_cast<int32_t>(greedy)};
}

TokenLoss row_f64(const Work& work, double* z, int64_t label) {
  const int64_t n = work.inputs.weight.rows();
  const HeadLoss::Attributes& a = work.attributes;
  const auto row = reference::loss_row(z, n, label, a.z_coefficient);
  const double* largest = std::max_element(z, z + n);
  const bool correct = z[label] >= *largest;
  const auto greedy = static_cast<int32_t>(largest - z);
  if (work.gradients()) {
    reference::loss_row_gradient({n, label, a.z_coefficient, a.loss_scale}, z);
  }
  return {row.loss, row.penalty, correct, greedy};
}

// Losses of the tokens from `first` on, whose logits these are; gradients in place.
void cross_entropy(Device& device, const Work& work, const MatrixView& logits, int64_t first) {
  const int32_t* labels = work.inputs.labels.data<int32_t>() + first;
  const size_t size = size_of(logits.dtype);
  parallel_for(device, logits.rows, rows_a_range(logits.columns, 4096),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> maxima(
                     static_cast<size_t>((logits.columns + softmax_block - 1) / softmax_block));
                 for (int64_t row = begin; row < end; ++row) {
                   std::byte* z = logits.data + static_cast<size_t>(row * logits.stride) * size;
                   if (labels[row] < 0) {
                     std::fill(z, z + static_cast<size_t>(logits.columns) * size, std::byte{0});
                     continue;
                   }
                   (*work.tokens)[static_cast<size_t>(first + row)] =
                       work.dtype() == Dtype::f64
                           ? row_f64(work, reinterpret_cast<double*>(z), labels[row])
                           : row_f32(work, reinterpret_cast<float*>(z), labels[row], maxima);
                 }
               });
}

void run_chunk(Device& device, const Work& work, const Tensor& buffer, int64_t first,
               int64_t last) {
  const HeadLoss::Attributes& a = work.attributes;
  const Tensor x = work.inputs.x.rows(first, last);
  const MatrixView logits =
      MatrixView(buffer).slice_rows(0, last - first).slice_columns(0, work.inputs.weight.rows());
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
  const int64_t stride = logits.stride * (work.dtype() == Dtype::bf16 ? 2 : 1);
  const MatrixView dz(logits.data, work.dtype(), logits.rows, logits.columns, stride);
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

// Elements from row to row of a chunk: an odd number of cache lines, because rows that lie a power
// of two apart slow down the product that reads them as columns.
int64_t padded(int64_t vocabulary) {
  const int64_t lines = (vocabulary + 15) / 16;
  return (lines | 1) * 16;
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
    Tensor logits(device, {step, padded(weight.rows())}, logit_type, MemoryKind::workspace);
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
          outputs.dw ? *outputs.dw : Tensor(), &tokens, outputs.greedy != nullptr});
  stream.synchronize();
  if (outputs.token_losses) {
    *outputs.token_losses = Tensor(stream.device(), {x.rows()}, Dtype::f32);
    std::transform(tokens.begin(), tokens.end(), outputs.token_losses->data<float>(),
                   [](const TokenLoss& token) { return static_cast<float>(token.loss); });
  }
  if (outputs.greedy) {
    *outputs.greedy = Tensor(stream.device(), {x.rows()}, Dtype::i32, MemoryKind::data);
    std::transform(tokens.begin(), tokens.end(), outputs.greedy->data<int32_t>(),
                   [](const TokenLoss& token) { return token.greedy; });
  }
  return summed(tokens, inputs.labels.span<int32_t>());
}

}  // namespace shoestring
#endif  // HWY_ONCE
