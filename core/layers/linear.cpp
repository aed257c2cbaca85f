#include "core/layers/linear.h"

#include "core/fp8/layer.h"
#include "core/ops/add_bias.h"
#include "core/ops/crossing_linear.h"
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

Edges LinearLayer::edges() const {
  const Edges edges{.in = in ? in->travel() : nullptr, .out = out ? out->travel() : nullptr};
  const bool all = (in == nullptr || edges.in) && (out == nullptr || edges.out);
  // A bias stands between the product and the edge behind it.
  return all && (bias == nullptr || out == nullptr) ? edges : Edges();
}

Value LinearLayer::finish(LayerContext& context, Value value, bool crossed) const {
  if (bias) value = apply<AddBias>(context.tape, {}, {value}, {bias});
  return out && !crossed ? out->cross(context.tape, value) : value;
}

Value LinearLayer::run(LayerContext& context, const Value& x) const {
  const Edges edges = this->edges();
  const bool crossed = static_cast<bool>(edges);
  const Value value = in && !crossed ? in->cross(context.tape, x) : x;
  if (Fp8Layer* layer = fp8_layer(context, *weight)) {
    // Behind an edge the op itself makes them.
    const auto [codes, scales] =
        edges.in ? std::array<Value, 2>() : fp8_codes(context, *layer, value);
    const std::vector<Value>* made = value.companions(e5m6_key);
    const std::vector<Value> stored = made ? *made : std::vector<Value>(2);
    return finish(context,
                  apply<Fp8Linear>(context.tape, {.layer = layer, .edges = edges},
                                   {value, codes, scales, stored[0], stored[1]}, {weight}),
                  crossed);
  }
  if (crossed) {
    return finish(context,
                  apply<CrossingLinear>(context.tape, {.exact = context.exact, .edges = edges},
                                        {value}, {weight}),
                  true);
  }
  return finish(context, apply<Linear>(context.tape, {.exact = context.exact}, {value}, {weight}));
}

Value LinearLayer::run_swiglu(LayerContext& context, const Value& gu) const {
  Fp8Layer* layer = fp8_layer(context, *weight);
  const bool fused = layer != nullptr && layer->recipe().swiglu_inputs && in == nullptr;
  if (!fused) return {};
  const Edges edges = this->edges();
  return finish(
      context,
      apply<Fp8SwigluLinear>(context.tape, {.layer = layer, .edges = edges}, {gu}, {weight}),
      static_cast<bool>(edges));
}

}  // namespace shoestring
