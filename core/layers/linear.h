#pragma once
// y = x w^T (+ bias), with the two boundaries where tensor parallelism stands.

#include <array>

#include "core/layers/context.h"
#include "core/row_travel.h"

namespace shoestring {

class Fp8Layer;  // core/fp8/layer.h

struct LinearLayer {
  const Param* weight = nullptr;  // [out, in]
  const Param* bias = nullptr;    // [out] or null
  Boundary* in = nullptr;         // null: identity
  Boundary* out = nullptr;

  Value run(LayerContext& context, const Value& x) const;  // [T, in] -> [T, out]
  // The same of x = swiglu(gu), gu [T, 2 in]: one op where FP8 keeps gate and up for the backward
  // pass instead of their product. Nothing (an empty value) where it does not.
  Value run_swiglu(LayerContext& context, const Value& gu) const;

 private:
  // Boundaries whose rows travel beside the product, all or none of those that the layer has.
  Edges edges() const;
  Value finish(LayerContext& context, Value value, bool crossed = false) const;
};

// The layer's plan: null where the matrix is multiplied in the compute type.
Fp8Layer* fp8_layer(const LayerContext& context, const Param& weight);
// The codes and scales of x for a layer, made once for all layers that want the same: {codes,
// scales}, or two empty values.
std::array<Value, 2> fp8_codes(LayerContext& context, const Fp8Layer& layer, const Value& x);

// Whether the weight gradient of this training pass reads the input in E5M6: then the op that makes
// the input keeps no other copy, and hands this one on among the input's companions.
bool keeps_e5m6(const LayerContext& context, const LinearLayer& layer);
inline constexpr uint64_t e5m6_key = ~uint64_t{0};  // of {codes, scales}

}  // namespace shoestring
