#include "core/layers/mtp.h"

#include <algorithm>

#include "core/ops/head_norm.h"
#include "core/ops/join_columns.h"
#include "core/text.h"

namespace shoestring {

Value MtpModule::join(LayerContext& context, const Value& hidden, const Tensor& tokens) const {
  Tape& tape = context.tape;
  const Value embedded = embedding.run(context, tokens);
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

void shift_row(const RowToShift& row, int64_t by, std::span<int32_t> tokens,
               std::span<int32_t> labels) {
  const auto length = static_cast<int64_t>(row.tokens.size());
  int64_t end = length;  // of the run of labels of one document that position i lies in
  for (int64_t i = length - 1; i >= 0; --i) {
    if (i + 1 < length && row.document_start[i + 1] != row.document_start[i]) end = i + 1;
    if (row.labels[i] < 0) end = i;
    tokens[i] = row.tokens[std::min(i + by, length - 1)];
    labels[i] = i + by < end ? row.labels[i + by] : -1;
  }
}

ShiftedRows shift_rows(Device& device, const BatchTensors& batch, int64_t by) {
  if (!batch.shifted.empty()) return batch.shifted.at(static_cast<size_t>(by - 1));
  const Shape shape{batch.sequences * batch.length};
  const ShiftedRows shifted{.tokens = Tensor(device, shape, Dtype::i32, MemoryKind::data),
                            .labels = Tensor(device, shape, Dtype::i32, MemoryKind::data)};
  const Tensor& documents = batch.document_start ? batch.document_start : batch.first_key;
  for (int64_t row = 0; row < batch.sequences; ++row) {
    const auto part = [&](const Tensor& t) {
      return t.span<int32_t>().subspan(row * batch.length, batch.length);
    };
    shift_row({part(batch.tokens), part(batch.labels), part(documents)}, by, part(shifted.tokens),
              part(shifted.labels));
  }
  return shifted;
}

int64_t count_agreements(const ShiftedRows& shifted, const Tensor& greedy,
                         const Tensor& main_greedy, int64_t by) {
  const auto labels = shifted.labels.span<int32_t>(), own = greedy.span<int32_t>();
  const auto main = main_greedy.span<int32_t>();
  int64_t agreed = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    const int64_t at =
        shifted.main ? shifted.main.span<int32_t>()[i] : static_cast<int64_t>(i) + by;
    if (at >= 0 && own[i] == main[static_cast<size_t>(at)]) ++agreed;
  }
  return agreed;
}

}  // namespace shoestring
