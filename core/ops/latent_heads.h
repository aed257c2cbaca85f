#pragma once
// latent_heads: keys and values of all heads from the up-projection of the latent and the one
// rotated key that all heads share (DeepSeek-V2, equations 12 to 16).
//
//   inputs   up [T, n (c + w)], per head the key's c dims and then the value's w dims;
//            key [T, r], already turned by its positions
//   outputs  k [T, n (c + r)], per head [its own c dims ; key]; v [T, n w]
//
// f32, bf16 or f64. The shared key's gradient is the sum of the heads' in ascending order of heads,
// in f32 (f64 for f64), rounded once: the same bits for any number of threads.

#include "core/op.h"

namespace shoestring {

struct LatentHeads {
  static constexpr std::string_view name = "latent_heads";
  static constexpr int num_inputs = 2, num_outputs = 2;
  struct Attributes {
    int64_t heads = 0;                      // n
    int64_t nope = 0, rope = 0, value = 0;  // c, r, w
    int64_t qk() const { return nope + rope; }
  };
  using Saved = NothingSaved;
  static Tensors<2> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  // {dup, dkey}; an empty gradient counts as zero (both empty: no gradients).
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<2>& dy);
};
static_assert(PlainOp<LatentHeads>);

}  // namespace shoestring
