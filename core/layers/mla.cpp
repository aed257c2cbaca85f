#include "core/layers/mla.h"

#include "core/layers/attention.h"
#include "core/ops/head_norm.h"
#include "core/ops/latent_heads.h"
#include "core/ops/rope.h"
#include "core/ops/split_latent.h"

namespace shoestring {
namespace {

// The norm of a latent, whose output is dropped under the policy of norms once it was used.
class LatentNorm {
 public:
  LatentNorm(LayerContext& context, const Param* gain, double epsilon, const Value& x)
      : tape_(context.tape) {
    if (context.recompute == Recompute::norms) region_ = tape_.begin_region();
    value_ = apply<HeadNorm>(tape_, {.eps = epsilon}, {x}, {gain});
    if (region_ >= 0) tape_.end_region(region_);
  }
  const Value& value() const { return value_; }
  void used() const {
    if (region_ >= 0) tape_.drop_region(region_, {});
  }

 private:
  Tape& tape_;
  int region_ = -1;
  Value value_;
};

}  // namespace

Value MlaLayer::run_query(LayerContext& context, const Value& source) const {
  Value all;
  if (q_down.weight != nullptr) {
    const LatentNorm norm(context, q_gain, norm_epsilon, source);
    all = q.run(context, norm.value());
    norm.used();
  } else {
    all = q.run(context, source);
  }
  // Local heads follow from the tensor, so that a shard of the heads needs no other code.
  const int64_t heads = all.tensor().columns() / shape.head_dim;
  return apply<Rope>(context.tape,
                     {.table = *context.rope,
                      .heads = heads,
                      .head_dim = shape.head_dim,
                      .rotated = rope,
                      .first = nope,
                      .interleaved = true},
                     {all, Value(context.batch.positions)});
}

Value MlaLayer::run_core(LayerContext& context, const Value& q_source, const Value& kv) const {
  Tape& tape = context.tape;
  const Value turned = run_query(context, q_source);
  AttentionShape s = shape;
  s.batch = context.batch.sequences;
  s.length = context.batch.length;
  s.q_heads = s.kv_heads = turned.tensor().columns() / s.head_dim;
  const auto [latent, key] = apply<SplitLatent>(
      tape, {.table = *context.rope, .latent = kv.tensor().columns() - rope, .rotated = rope},
      {kv, Value(context.batch.positions)});
  const LatentNorm norm(context, kv_gain, norm_epsilon, latent);
  if (context.attention) {
    const Value o =
        context.attention->run_latent(tape, {.shape = s,
                                             .nope = nope,
                                             .rope = rope,
                                             .q = turned,
                                             .latent = norm.value(),
                                             .key = key,
                                             .up = tape.source().weight(*kv_up.weight)});
    if (o) return o;
  }
  const Value up = kv_up.run(context, norm.value());
  norm.used();
  const auto [k, v] = apply<LatentHeads>(
      tape, {.heads = s.kv_heads, .nope = nope, .rope = rope, .value = s.v_head_dim}, {up, key});
  LocalAttention local(keeps_e5m6(context, output));
  AttentionCore& core = context.attention ? *context.attention : local;
  return core.run(tape, s, turned, k, v, context.batch.first_key);
}

Value MlaLayer::run(LayerContext& context, const Value& x) const {
  Tape& tape = context.tape;
  const Value q_source = q_down.weight != nullptr ? q_down.run(context, x) : x;
  const Value kv = kv_down.run(context, x);
  const bool region = context.recompute == Recompute::attention;
  const int id = region ? tape.begin_region() : -1;
  const Value o = run_core(context, q_source, kv);
  if (region) tape.end_region(id);
  Value y = output.run(context, o);
  if (region) tape.drop_region(id, {});
  return y;
}

}  // namespace shoestring
