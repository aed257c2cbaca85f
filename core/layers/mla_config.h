#pragma once
// Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values of all heads are made
// from one small latent a token, and one shared rotated key carries the position.

#include <cstdint>

#include "core/fields.h"

namespace shoestring {

struct MlaConfig {
  int64_t kv_latent = 0;  // d_c; 0: the model has no latent attention
  int64_t q_latent = 0;   // d_c'
  int64_t nope_dim = 128, rope_dim = 64, v_dim = 128;

  bool on() const { return kv_latent > 0; }
  int64_t qk_dim() const { return nope_dim + rope_dim; }

  template <class V>
  void visit(V&& v) {
    v("kv_latent", kv_latent,
      Field{.help = "width of the latent of keys and values; 0: no latent attention",
            .min = 0,
            .max = 1 << 24});
    v("q_latent", q_latent,
      Field{.help = "width of the latent of queries; 0: queries from the stream itself",
            .min = 0,
            .max = 1 << 24});
    v("nope_dim", nope_dim,
      Field{.help = "width of a head's query and key without position", .min = 1, .max = 1 << 16});
    v("rope_dim", rope_dim,
      Field{.help = "width of the rotated part, whose key all heads share; even",
            .min = 2,
            .max = 1 << 16});
    v("v_dim", v_dim, Field{.help = "width of a head's value", .min = 1, .max = 1 << 16});
  }
  void validate(Complaints& c) const {
    if (rope_dim % 2 != 0) c.add("rope_dim", "must be even for rotary embedding");
  }
};

}  // namespace shoestring
