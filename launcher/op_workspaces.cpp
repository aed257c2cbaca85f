#include "launcher/op_workspaces.h"

#include <algorithm>
#include <utility>

#include "core/device.h"
#include "core/dtype.h"
#include "core/instruction_set.h"
#include "core/layers/context.h"
#include "core/ops/attention_products.h"
#include "core/ops/head_loss.h"
#include "core/panel_product.h"
#include "core/parallel_for.h"
#include "parallel/communicator.h"

namespace shoestring {
namespace {

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Beside every round of a ring (parallel/context_ring.cpp): sums of dq or o in f32, unless they are
// these themselves, and the first and last key of each row.
int64_t ring_workspace(const RunConfig& config, const ForecastInput& in, int64_t width) {
  if (in.share.context == 1 || in.share.context_kind != ContextKind::ring) return 0;
  const int64_t rows = in.sequences * in.length / in.share.context;
  return rows * (config.train.dtype == "f32" ? 8 : 4 * width + 8);
}

// What one pass of attention's backward takes (core/ops/attention_backward.cpp): panels of keys and
// values as long as the row, a block of rows of each head of the group, and a block of scores.
// Where the processor multiplies pairs of bf16, a word holds two of them.
int64_t attention_workspace(const RunConfig& config, const ForecastInput& in) {
  constexpr int64_t rows = attention::block_rows, keys = attention::block_keys;
  const ModelConfig& m = config.model;
  const bool ring = in.share.context_kind == ContextKind::ring;
  const int64_t cut = in.share.tensor * (ring ? 1 : in.share.context);  // of the heads
  const int64_t length = ring ? in.length / in.share.context : in.length;
  const int64_t all = m.mla.on() ? m.heads : m.kv_heads, heads = m.heads / cut;
  const int64_t kv_heads = std::max<int64_t>(all / cut, 1), group = heads / kv_heads;
  const int64_t k = m.mla.on() ? m.mla.qk_dim() : m.dim_of_head();
  const int64_t v = m.mla.on() ? m.mla.v_dim : k;
  const bool pairs = config.train.dtype == "bf16" && has_bf16_products();
  const auto words = [&](int64_t width) {
    return round_up(pairs ? (width + 1) / 2 : width, attention::word_multiple);
  };
  const int64_t k_wide = round_up(k, attention::word_multiple);
  const int64_t v_wide = round_up(v, attention::word_multiple);
  const int64_t head = rows * (words(k) + words(v) + 2 * k_wide + 2 * v_wide + 2);
  const int64_t panel = words(k) + words(v) + 2 * k_wide + v_wide;  // of one key
  const int64_t floats = 5 * rows * keys + group * head + round_up(length, keys) * panel +
                         keys * std::max(words(k), words(v));
  const int64_t passes = std::min<int64_t>(in.threads, in.sequences * kv_heads);
  return passes * floats * 4 + ring_workspace(config, in, heads * std::max(k, v));
}

// A chunk of logits (core/ops/head_loss.cpp), the packed operands of the product at work and, in
// exact mode, the weight gradient by itself.
int64_t head_workspace(const RunConfig& config, const Device& device, const ForecastInput& in) {
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const int64_t tokens = in.sequences * in.length / in.share.context;
  const int64_t v = even_counts(config.model.vocabulary, static_cast<int>(in.share.tensor))[0];
  const int64_t d = config.model.hidden;
  const int64_t rows = std::min(tokens, HeadLoss::chunk_rows({}, v, dtype));
  const int64_t stride = ((v + 15) / 16 | 1) * 16;
  const int64_t product = std::max({panel_product_bytes(device, {rows, v, d}, dtype),
                                    panel_product_bytes(device, {rows, d, v}, dtype),
                                    weight_product_bytes(config, device, {v, d, rows})});
  return rows * stride * 4 + product + (config.train.exact ? v * d * 4 : 0);
}

// Of one product with up to so many rows: fewer may take more, for a block of rows is packed whole.
int64_t most_of_rows(const Device& device, const PanelSizes& sizes, Dtype dtype) {
  constexpr int64_t longest_piece = 1024, step = 8;
  int64_t most = panel_product_bytes(device, sizes, dtype);
  for (int64_t n = step; n < std::min(sizes.rows, longest_piece); n += step) {
    most = std::max(most, panel_product_bytes(device, {n, sizes.columns, sizes.depth}, dtype));
  }
  return most;
}

// core/ops/grouped_linear.cpp: every thread makes a piece of one expert's product by itself and
// packs that expert's matrix. A token chooses an expert once, so an expert has at most one row of
// each token of the ranks that share the experts out.
int64_t expert_workspace(const RunConfig& config, const Device& device, const ForecastInput& in) {
  const MoeConfig& m = config.model.moe;
  if (!m.on()) return 0;
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const int64_t tokens = in.sequences * in.length / in.share.context / in.share.tensor;
  const int64_t rows = tokens * in.share.experts * in.share.slices;
  const int64_t d = config.model.hidden, inner = m.ffn / in.share.slices;
  const Device one(DeviceKind::cpu, 0, 1);
  int64_t piece = 0;
  for (const auto& [outputs, inputs] : {std::pair{2 * inner, d}, std::pair{d, inner}}) {
    piece = std::max({piece, most_of_rows(one, {rows, outputs, inputs}, dtype),
                      most_of_rows(one, {rows, inputs, outputs}, dtype),
                      panel_product_bytes(one, {outputs, inputs, rows}, dtype)});
  }
  constexpr int64_t worth_a_thread = 1 << 23;  // multiplications, as the op has it
  return piece * threads_for(device, rows * m.chosen * 2 * inner * d, worth_a_thread);
}

}  // namespace

OpWorkspaces forecast_workspaces(const RunConfig& config, const ForecastInput& in) {
  const Device device(DeviceKind::cpu, 0, in.threads);
  return {.head = head_workspace(config, device, in),
          .attention = attention_workspace(config, in),
          .experts = expert_workspace(config, device, in)};
}

}  // namespace shoestring
