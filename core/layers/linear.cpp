#include "core/layers/linear.h"

#include "core/fp8/layer.h"
#include "core/ops/add_bias.h"
#include "core/ops/fp8_encode.h"
#include "core/ops/fp8_linear.h"
#include "core/ops/fp8_swiglu_linear.h"
#include "core/ops/linear.h"

namespace shoestring {
namespace {

uint64_t key_of(const Fp8Encoding& e) {
  const auto format = static_cast<uint64_t>(e.format), scales = static_cast<uint64_t>(e.scales);
  return static_cast<uint64_t>(e.tile.rows) << 32 | static_cast<uint64_t>(e.tile.columns) << 8 |
         format << 1 | scales;
}

}  // namespace

Fp8Layer* fp8_layer(const LayerContext& context, const Param& weight) {
  return context.fp8 == nullptr ? nullptr : context.fp8->layer(weight);
}

std::array<Value, 2> fp8_codes(LayerContext& context, const Fp8Layer& layer, const Value& x) {
  if (!layer.wants_codes()) return {};
  const uint64_t key = key_of(layer.input());
  if (x.companions(key) == nullptr) {
    auto [codes, scales] = apply<Fp8Encode>(context.tape, {.encoding = layer.input()}, {x});
    x.keep_companions(key, {codes, scales});
  }
  const std::vector<Value>& kept = *x.companions(key);
  return {kept[0], kept[1]};
}

bool keeps_e5m6(const LayerContext& context, const LinearLayer& layer) {
  const Fp8Layer* fp8 = fp8_layer(context, *layer.weight);
  return fp8 != nullptr && fp8->copy() == Fp8Copy::e5m6 && layer.in == nullptr &&
         context.tape.recording();
}

Value LinearLayer::finish(LayerContext& context, Value value) const {
  if (bias) value = apply<AddBias>(context.tape, {}, {value}, {bias});
  return out ? out->cross(context.tape, value) : value;
}

Value LinearLayer::run(LayerContext& context, const Value& x) const {
  const Value value = in ? in->cross(context.tape, x) : x;
  if (Fp8Layer* layer = fp8_layer(context, *weight)) {
    const auto [codes, scales] = fp8_codes(context, *layer, value);
    const std::vector<Value>* made = value.companions(e5m6_key);
    const std::vector<Value> stored = made ? *made : std::vector<Value>(2);
    return finish(context,
                  apply<Fp8Linear>(context.tape, {.layer = layer},
                                   {value, codes, scales, stored[0], stored[1]}, {weight}));
  }
  return finish(context, apply<Linear>(context.tape, {.exact = context.exact}, {value}, {weight}));
}

Value LinearLayer::run_swiglu(LayerContext& context, const Value& gu) const {
  Fp8Layer* layer = fp8_layer(context, *weight);
  const bool fused = layer != nullptr && layer->recipe().swiglu_inputs && in == nullptr;
  if (!fused) return {};
  return finish(context, apply<Fp8SwigluLinear>(context.tape, {.layer = layer}, {gu}, {weight}));
}

}  // namespace shoestring
