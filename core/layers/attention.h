#pragma once
// Grouped-query attention of the Llama and Qwen families: one fused product for q, k and v,
// optional norms over heads (Qwen3), rotary embedding, the attention core, the output product.

#include "core/layers/context.h"
#include "core/layers/linear.h"

namespace shoestring {

struct AttentionLayer {
  AttentionShape shape;  // batch and length are filled per micro-batch
  double norm_epsilon = 1e-6;
  LinearLayer qkv, output;
  const Param* q_gain = nullptr;  // [head_dim]; null: no norm over heads
  const Param* k_gain = nullptr;

  Value run(LayerContext& context, const Value& x) const;  // [T, d] -> [T, d]

 private:
  Value run_core(LayerContext& context, const Value& x) const;
};

// The default core: attention within this rank's rows.
class LocalAttention : public AttentionCore {
 public:
  // `e5m6`: the output is kept in E5M6, see keeps_e5m6 in core/layers/linear.h.
  explicit LocalAttention(bool e5m6 = false) : e5m6_(e5m6) {}
  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor& first_key) override;

 private:
  bool e5m6_;
};

}  // namespace shoestring
