#include "core/model/config.h"

#include <cmath>

#include "core/text.h"

namespace shoestring {

double ModelConfig::scale_of_attention() const {
  return attention_scale > 0 ? attention_scale
                             : 1.0 / std::sqrt(static_cast<double>(dim_of_head()));
}

void ModelConfig::validate(Complaints& c) const {
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

ParamCounts count_parameters(const ModelConfig& m) {
  const int64_t d = m.hidden, hd = m.dim_of_head();
  const int64_t q = m.heads * hd, kv = m.kv_heads * hd;
  int64_t block = d * (q + 2 * kv) + q * d + 3 * d * m.ffn + 2 * d;
  if (m.qkv_bias) block += q + 2 * kv;
  if (m.qk_norm) block += 2 * hd;
  ParamCounts counts;
  counts.non_embedding = m.layers * block + d;
  counts.total = counts.non_embedding + m.vocabulary * d * (m.tied_embeddings ? 1 : 2);
  return counts;
}

double training_flop_per_token(const ModelConfig& m, int64_t sequence_length) {
  const int64_t d = m.hidden, hd = m.dim_of_head();
  const int64_t q = m.heads * hd, kv = m.kv_heads * hd;
  const int64_t weights = m.layers * (d * (q + 2 * kv) + q * d + 3 * d * m.ffn) + m.vocabulary * d;
  // A window or a short sequence bounds how far back a token looks; causal: half on average.
  const int64_t seen = m.window > 0 ? std::min(m.window, sequence_length) : sequence_length;
  return 6.0 * static_cast<double>(weights) + 6.0 * static_cast<double>(m.layers * seen * q);
}

}  // namespace shoestring
