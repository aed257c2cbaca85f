#pragma once
// split_qkv: cuts the fused projection into q, k and v, and turns q and k by their positions in the
// same pass when a table is given (models without QK-norm; those with it split without a table,
// normalise and call rope).
//
//   inputs   qkv [T, (heads + 2 kv_heads) * head_dim] f32, bf16 or f64; positions i32 [T]
//   outputs  q [T, heads * head_dim], k and v [T, kv_heads * head_dim]

#include "core/op.h"
#include "core/ops/rope.h"

namespace shoestring {

struct SplitQkv {
  static constexpr std::string_view name = "split_qkv";
  static constexpr int num_inputs = 2, num_outputs = 3;
  struct Attributes {
    RopeTable table = {};  // empty: no rotation
    int64_t heads = 0, kv_heads = 0, head_dim = 0;
    int64_t rotated = 0;  // dims of a head that turn, from the first on; 0: all
    bool interleaved = false;
  };
  struct Saved {
    Tensor positions;
    template <class F>
    void each(F&& f) {
      f(positions);
    }
  };
  static Tensors<3> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  // One pass that fills dqkv; an empty gradient counts as zero (all empty: no gradient).
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<3>& dy);
};
static_assert(PlainOp<SplitQkv>);

}  // namespace shoestring
