#include "core/layers/attention.h"

#include "core/ops/attention.h"
#include "core/ops/e5m6_attention.h"
#include "core/ops/head_norm.h"
#include "core/ops/split_qkv.h"

namespace shoestring {

Value LocalAttention::run(Tape& tape, const AttentionShape& s, const Value& q, const Value& k,
                          const Value& v, const Tensor& first_key) {
  const Attention::Attributes attributes{.batch = s.batch,
                                         .length = s.length,
                                         .q_heads = s.q_heads,
                                         .kv_heads = s.kv_heads,
                                         .head_dim = s.head_dim,
                                         .v_head_dim = s.v_head_dim,
                                         .scale = s.scale,
                                         .window = s.window};
  if (!e5m6_) return apply<Attention>(tape, attributes, {q, k, v, Value(first_key)});
  auto [o, codes, scales] = apply<E5M6Attention>(tape, attributes, {q, k, v, Value(first_key)});
  o.keep_companions(e5m6_key, {codes, scales});
  return o;
}

Value AttentionLayer::run_core(LayerContext& context, const Value& x) const {
  Tape& tape = context.tape;
  AttentionShape s = shape;
  s.batch = context.batch.sequences;
  s.length = context.batch.length;
  const Value positions(context.batch.positions);
  const Value fused = qkv.run(context, x);
  // Local heads follow from the matrices, so that a shard of the heads needs no other code.
  s.q_heads = output.weight->info.shape.columns() / s.v_head_dim;
  s.kv_heads = (fused.tensor().columns() / s.head_dim - s.q_heads) / 2;
  const bool norms = q_gain != nullptr;
  SplitQkv::Attributes split{.heads = s.q_heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim};
  if (!norms) split.table = *context.rope;
  auto [q, k, v] = apply<SplitQkv>(tape, split, {fused, positions});
  if (norms) {
    auto turned = [&](const Value& x, const Param* gain, int64_t heads) {
      const Value normalised = apply<HeadNorm>(tape, {.eps = norm_epsilon}, {x}, {gain});
      return apply<Rope>(
          tape,
          {.table = *context.rope, .heads = heads, .head_dim = s.head_dim, .rotated = s.head_dim},
          {normalised, positions});
    };
    q = turned(q, q_gain, s.q_heads);
    k = turned(k, k_gain, s.kv_heads);
  }
  LocalAttention local(keeps_e5m6(context, output));
  AttentionCore& core = context.attention ? *context.attention : local;
  return core.run(tape, s, q, k, v, context.batch.first_key);
}

Value AttentionLayer::run(LayerContext& context, const Value& x) const {
  const bool region = context.recompute == Recompute::attention;
  const int id = region ? context.tape.begin_region() : -1;
  const Value o = run_core(context, x);
  if (region) context.tape.end_region(id);
  Value y = output.run(context, o);
  if (region) context.tape.drop_region(id, {});
  return y;
}

}  // namespace shoestring
