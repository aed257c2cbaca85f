#include "core/model/config.h"

#include <cmath>

#include "core/text.h"

namespace shoestring {

double ModelConfig::scale_of_attention() const {
  if (attention_scale > 0) return attention_scale;
  if (!mla.on()) return 1.0 / std::sqrt(static_cast<double>(dim_of_head()));
  // DeepSeek-V3's code: the stretching of positions also scales the softmax, once for q and once
  // for k.
  const double m = rope.scaling == "yarn" && rope.mscale_all_dim > 0
                       ? 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1
                       : 1.0;
  return m * m / std::sqrt(static_cast<double>(mla.qk_dim()));
}

void ModelConfig::validate(Complaints& c) const {
  if (mtp.depth > 0 && mtp.weight == 0)
    c.add("mtp.weight", "is 0: the modules would learn nothing");
  if (mla.on()) {
    const std::string latent =
        cat("is true, but mla.kv_latent = ", mla.kv_latent, " makes latent attention, which has ");
    if (qkv_bias) c.add("qkv_bias", cat(latent, "no biases; leave one of the two out"));
    if (qk_norm) {
      c.add("qk_norm", cat(latent, "norms of its latents instead; leave one of the two out"));
    }
    return;  // heads, each with a key and value of its own, of the widths in mla
  }
  if (heads % kv_heads != 0) {
    c.add("kv_heads", cat("must divide heads (", heads, ") but is ", kv_heads));
  }
  if (head_dim == 0 && hidden % heads != 0) {
    c.add("head_dim",
          cat("must be given: hidden (", hidden, ") is not a multiple of heads (", heads, ")"));
  }
  if (dim_of_head() % 2 != 0) {
    c.add("head_dim", cat("must be even for rotary embedding but is ", dim_of_head()));
  }
}

}  // namespace shoestring
