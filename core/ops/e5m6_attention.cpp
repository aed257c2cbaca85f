#include "core/ops/e5m6_attention.h"

#include "core/fp8/e5m6.h"

namespace shoestring {

Tensors<3> E5M6Attention::forward(Stream& stream, const Attributes& attributes, const Tensors<4>& x,
                                  Saved& saved) {
  Attention::Saved all;
  const Tensor o = Attention::forward(stream, attributes, x, all)[0];
  const E5M6Tensor stored = store_e5m6(stream, o);
  saved = {.q = all.q,
           .k = all.k,
           .v = all.v,
           .first_key = all.first_key,
           .codes = stored.codes,
           .scales = stored.scales,
           .log_sum_exp = all.log_sum_exp};
  return {o, stored.codes, stored.scales};
}

Tensors<4> E5M6Attention::grad_input(Stream& stream, const Attributes& attributes,
                                     const Saved& saved, const Tensors<3>& dy) {
  if (!dy[0]) return {};
  const Tensor o = load_e5m6(stream, {saved.codes, saved.scales},
                             attributes.q_heads * attributes.v_head_dim, saved.q.dtype());
  return Attention::grad_input(stream, attributes,
                               {.q = saved.q,
                                .k = saved.k,
                                .v = saved.v,
                                .first_key = saved.first_key,
                                .o = o,
                                .log_sum_exp = saved.log_sum_exp},
                               {dy[0]});
}

}  // namespace shoestring
