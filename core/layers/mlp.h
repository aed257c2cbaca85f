#pragma once
// SwiGLU mlp: down(silu(gate x) * (up x)), gate and up as one product.

#include "core/layers/context.h"
#include "core/layers/linear.h"

namespace shoestring {

struct MlpLayer {
  LinearLayer gate_up, down;
  Value run(LayerContext& context, const Value& x) const;  // [T, d] -> [T, d]
};

}  // namespace shoestring
