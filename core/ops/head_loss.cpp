#include "core/ops/head_loss.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/ops/head_loss_reference.h"
#include "core/ops/logit_rows.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

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
    const int64_t begin = static_cast<int64_t>(block) * logit_block;
    const int64_t size = std::min(logit_block, n - begin);
    const double shift = static_cast<double>(maxima[block]) - lse;
    const auto scale = static_cast<float>(factor * std::exp(shift));
    if (work.dtype() == Dtype::bf16) {
      scale_row(e + begin, size, scale, reinterpret_cast<BFloat16*>(e) + begin);
    } else {
      scale_row(e + begin, size, scale, e + begin);
    }
  }
}

// What a token's loss needs of its logits; without gradients they stay, else e^(z - maximum of its
// block) stands in their place (in f64 they stay).
VocabularyRow sums_f32(const Work& work, float* z, int64_t label, std::span<float> maxima) {
  const int64_t n = work.inputs.weight.rows();
  VocabularyRow row;
  if (label >= 0 && label < n) row.label = static_cast<double>(z[label]);
  if (work.greedy) row.greedy = first_largest_of_row(z, n);
  float largest = 0;
  row.lse = log_sum_exp_of_row(z, n, work.gradients() ? maxima.data() : nullptr, &largest);
  row.largest = static_cast<double>(largest);
  return row;
}

VocabularyRow sums_f64(const Work& work, const double* z, int64_t label) {
  const int64_t n = work.inputs.weight.rows();
  const double* largest = std::max_element(z, z + n);
  VocabularyRow row{.lse = reference::loss_row(z, n, 0, 0).lse, .largest = *largest};
  if (label >= 0 && label < n) row.label = z[label];
  row.greedy = largest - z;
  return row;
}

// Gradients in place of what the sums left.
void differentiate(const Work& work, const VocabularyRow& row, std::byte* at, int64_t label,
                   std::span<const float> maxima) {
  const HeadLoss::Attributes& a = work.attributes;
  const int64_t n = work.inputs.weight.rows();
  const bool here = label >= 0 && label < n;
  const double loss = row.lse - row.label, extra = 2 * a.z_coefficient * row.lse;
  if (work.dtype() == Dtype::f64) {
    auto* z = reinterpret_cast<double*>(at);
    const double slope = a.loss_scale * (1 + extra);
    for (int64_t v = 0; v < n; ++v) z[v] = slope * std::exp(z[v] - row.lse);
    if (here) z[label] -= a.loss_scale;
    return;
  }
  auto* z = reinterpret_cast<float*>(at);
  differentiate_row(work, z, maxima, row.lse, a.loss_scale * (1 + extra));
  if (!here) return;
  // 1 - p without cancellation.
  const auto at_label =
      static_cast<float>(a.loss_scale * (std::expm1(-loss) + extra * std::exp(-loss)));
  if (work.dtype() == Dtype::bf16) {
    reinterpret_cast<BFloat16*>(z)[label] = BFloat16(at_label);
  } else {
    z[label] = at_label;
  }
}

TokenLoss loss_of(const Work& work, const VocabularyRow& row) {
  return {.loss = row.lse - row.label,
          .penalty = work.attributes.z_coefficient * row.lse * row.lse,
          .correct = row.label >= row.largest,
          .greedy = static_cast<int32_t>(row.greedy)};
}

// One chunk's logits on their way to losses and gradients.
class Rows {
 public:
  Rows(const Work& work, const MatrixView& logits, int64_t first)
      : work_(work),
        logits_(logits),
        first_(first),
        column_(work.attributes.shard ? work.attributes.shard->first() : 0),
        blocks_((logits.columns + logit_block - 1) / logit_block) {}

  void run(Device& device) {
    const VocabularyShard* shard = work_.attributes.shard;
    if (shard == nullptr) {
      each_row(device, [&](int64_t row, std::span<float> maxima) {
        finish(row, sums(row, maxima), maxima);
      });
      return;
    }
    std::vector<VocabularyRow> all(static_cast<size_t>(logits_.rows));
    std::vector<float> maxima(static_cast<size_t>(logits_.rows * blocks_));
    const auto maxima_of = [&](int64_t row) {
      return std::span(maxima).subspan(static_cast<size_t>(row * blocks_),
                                       static_cast<size_t>(blocks_));
    };
    each_row(device, [&](int64_t row, std::span<float>) {
      all[static_cast<size_t>(row)] = sums(row, maxima_of(row));
      all[static_cast<size_t>(row)].greedy += column_;
    });
    shard->merge(device, all);
    each_row(device, [&](int64_t row, std::span<float>) {
      finish(row, all[static_cast<size_t>(row)], maxima_of(row));
    });
  }

 private:
  std::byte* at(int64_t row) const {
    return logits_.data + static_cast<size_t>(row * logits_.stride) * size_of(logits_.dtype);
  }
  int64_t label(int64_t row) const {
    return work_.inputs.labels.data<int32_t>()[first_ + row] - column_;
  }
  // f(row, scratch) of the rows with labels; the others' gradients are nothing.
  template <class F>
  void each_row(Device& device, F&& f) const {
    const int32_t* labels = work_.inputs.labels.data<int32_t>() + first_;
    parallel_for(
        device, logits_.rows, rows_a_range(logits_.columns, 4096), [&](int64_t begin, int64_t end) {
          std::vector<float> maxima(static_cast<size_t>(blocks_));
          for (int64_t row = begin; row < end; ++row) {
            if (labels[row] >= 0) {
              f(row, maxima);
              continue;
            }
            const size_t bytes = static_cast<size_t>(logits_.columns) * size_of(logits_.dtype);
            std::fill(at(row), at(row) + bytes, std::byte{0});
          }
        });
  }
  VocabularyRow sums(int64_t row, std::span<float> maxima) const {
    if (work_.dtype() == Dtype::f64) {
      return sums_f64(work_, reinterpret_cast<double*>(at(row)), label(row));
    }
    return sums_f32(work_, reinterpret_cast<float*>(at(row)), label(row), maxima);
  }
  void finish(int64_t row, const VocabularyRow& r, std::span<const float> maxima) const {
    if (work_.gradients()) differentiate(work_, r, at(row), label(row), maxima);
    (*work_.tokens)[static_cast<size_t>(first_ + row)] = loss_of(work_, r);
  }

  const Work& work_;
  MatrixView logits_;
  int64_t first_;   // token
  int64_t column_;  // of the vocabulary, of this part's first
  int64_t blocks_;
};

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
  Rows(work, logits, first).run(device);
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
  const VocabularyShard* shard = work.attributes.shard;
  const int64_t vocabulary = shard ? shard->vocabulary() : work.inputs.weight.rows();
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
    // The same on all ranks of a shared vocabulary, whose parts may differ.
    const VocabularyShard* shard = work.attributes.shard;
    const int64_t columns = shard ? shard->widest() : weight.rows();
    const int64_t step =
        std::min(rows, HeadLoss::chunk_rows(work.attributes, columns, work.dtype()));
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
