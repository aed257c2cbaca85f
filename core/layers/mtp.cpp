#include "core/layers/mtp.h"

#include <algorithm>

#include "core/ops/embedding.h"
#include "core/ops/head_norm.h"
#include "core/ops/join_columns.h"
#include "core/text.h"

namespace shoestring {

Value MtpModule::join(LayerContext& context, const Value& hidden, const Tensor& tokens) const {
  Tape& tape = context.tape;
  const Value embedded =
      apply<Embedding>(tape, {.multiplier = embedding_multiplier}, {Value(tokens)}, {embedding});
  const bool region = context.recompute == Recompute::norms;
  const int id = region ? tape.begin_region() : -1;
  const Value first = apply<HeadNorm>(tape, {.eps = norm_epsilon}, {embedded}, {embedding_gain});
  const Value second = apply<HeadNorm>(tape, {.eps = norm_epsilon}, {hidden}, {hidden_gain});
  const Value both = apply<JoinColumns>(tape, {.first = first.tensor().columns()}, {first, second});
  if (region) tape.end_region(id);
  Value x = projection.run(context, both);
  if (region) tape.drop_region(id, {});
  return x;
}

Residual MtpModule::run(LayerContext& context, const Value& hidden, const Tensor& tokens) const {
  Tape& tape = context.tape;
  const bool whole = context.recompute == Recompute::block;
  const int region = whole ? tape.begin_region() : -1;
  tape.begin_segment(cat(prefix, "projection"));
  const Value x = join(context, hidden, tokens);
  tape.end_segment();
  Residual out = block.run(context, {x, Value()}, prefix);
  if (whole) {
    tape.end_region(region);
    out = {run_sum(context, final_norm, out), Value()};
    tape.drop_region(region, {});
  }
  return out;
}

ShiftedRows shift_rows(Device& device, const BatchTensors& batch, int64_t by) {
  const int64_t length = batch.length;
  const Shape shape{batch.sequences * length};
  const ShiftedRows shifted{Tensor(device, shape, Dtype::i32, MemoryKind::data),
                            Tensor(device, shape, Dtype::i32, MemoryKind::data)};
  const Tensor& documents = batch.document_start ? batch.document_start : batch.first_key;
  for (int64_t row = 0; row < batch.sequences; ++row) {
    const int32_t* tokens = batch.tokens.data<int32_t>() + row * length;
    const int32_t* labels = batch.labels.data<int32_t>() + row * length;
    int32_t* to_tokens = shifted.tokens.data<int32_t>() + row * length;
    int32_t* to_labels = shifted.labels.data<int32_t>() + row * length;
    const int32_t* starts = documents.data<int32_t>() + row * length;
    int64_t end = length;  // of the run of labels of one document that position i lies in
    for (int64_t i = length - 1; i >= 0; --i) {
      if (i + 1 < length && starts[i + 1] != starts[i]) end = i + 1;
      if (labels[i] < 0) end = i;
      to_tokens[i] = tokens[std::min(i + by, length - 1)];
      to_labels[i] = i + by < end ? labels[i + by] : -1;
    }
  }
  return shifted;
}

int64_t count_agreements(const ShiftedRows& shifted, const Tensor& greedy,
                         const Tensor& main_greedy, int64_t by) {
  const auto labels = shifted.labels.span<int32_t>(), own = greedy.span<int32_t>();
  const auto main = main_greedy.span<int32_t>();
  int64_t agreed = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && own[i] == main[i + static_cast<size_t>(by)]) ++agreed;
  }
  return agreed;
}

}  // namespace shoestring
