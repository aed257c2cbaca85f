#include "core/layers/linear.h"

#include "core/ops/add_bias.h"
#include "core/ops/linear.h"

namespace shoestring {

Value LinearLayer::run(LayerContext& context, const Value& x) const {
  Value value = in ? in->cross(context.tape, x) : x;
  value = apply<Linear>(context.tape, {.exact = context.exact}, {value}, {weight});
  if (bias) value = apply<AddBias>(context.tape, {}, {value}, {bias});
  return out ? out->cross(context.tape, value) : value;
}

}  // namespace shoestring
