#pragma once
// y = x w^T (+ bias), with the two boundaries where tensor parallelism stands.

#include "core/layers/context.h"

namespace shoestring {

struct LinearLayer {
  const Param* weight = nullptr;  // [out, in]
  const Param* bias = nullptr;    // [out] or null
  Boundary* in = nullptr;         // null: identity
  Boundary* out = nullptr;

  Value run(LayerContext& context, const Value& x) const;  // [T, in] -> [T, out]
};

}  // namespace shoestring
