#include "core/layers/mlp.h"

#include "core/ops/swiglu.h"

namespace shoestring {

Value MlpLayer::run(LayerContext& context, const Value& x) const {
  const Value fused = gate_up.run(context, x);
  if (Value y = down.run_swiglu(context, fused)) return y;
  const bool region =
      context.recompute == Recompute::swiglu || context.recompute == Recompute::norms;
  const int id = region ? context.tape.begin_region() : -1;
  const Value product = apply<Swiglu>(context.tape, {}, {fused});
  if (region) context.tape.end_region(id);
  Value y = down.run(context, product);
  if (region) context.tape.drop_region(id, {});
  return y;
}

}  // namespace shoestring
