#pragma once
// split_latent: cuts the down-projection of latent attention into the latent of keys and values
// and the part of the key that all heads share, and turns the latter by its positions in the same
// pass (DeepSeek-V2, equations 9 to 15: c^KV and k^R).
//
//   inputs   x [T, d_c + r] f32, bf16 or f64; positions i32 [T]
//   outputs  latent [T, d_c], a copy; key [T, r], rotated in interleaved pairs (core/ops/rope.h)

#include "core/op.h"
#include "core/ops/rope.h"

namespace shoestring {

struct SplitLatent {
  static constexpr std::string_view name = "split_latent";
  static constexpr int num_inputs = 2, num_outputs = 2;
  struct Attributes {
    RopeTable table = {};             // of r dims
    int64_t latent = 0, rotated = 0;  // d_c, r
  };
  struct Saved {
    Tensor positions;
    template <class F>
    void each(F&& f) {
      f(positions);
    }
  };
  static Tensors<2> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  // One pass that fills dx; an empty gradient counts as zero (both empty: no gradient).
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<2>& dy);
};
static_assert(PlainOp<SplitLatent>);

}  // namespace shoestring
