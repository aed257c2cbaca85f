#include "core/layers/decoder_block.h"

#include "core/ops/add.h"
#include "core/ops/rms_norm.h"
#include "core/text.h"

namespace shoestring {
namespace {

// Runs `layer` on the norm of x. Under the elementwise policy the normalised values are dropped
// once the layer has used them, and made again from the sum.
template <class Layer>
Residual run_sublayer(LayerContext& context, const NormLayer& norm, const Layer& layer,
                      Residual x) {
  Tape& tape = context.tape;
  const bool region = context.recompute == Recompute::norms;
  if (region) x = {run_sum(context, norm, x), Value()};
  const int id = region ? tape.begin_region() : -1;
  auto [sum, normalised] = run_norm(context, norm, x);
  if (region) tape.end_region(id);
  Value delta = layer.run(context, normalised);
  if (region) tape.drop_region(id, {sum});
  return {sum, delta};
}

}  // namespace

std::array<Value, 2> run_norm(LayerContext& context, const NormLayer& norm, const Residual& x) {
  return apply<RmsNorm>(context.tape,
                        {.eps = norm.epsilon, .delta_multiplier = norm.delta_multiplier},
                        {x.stream, x.delta}, {norm.gain});
}

Value run_sum(LayerContext& context, const NormLayer& norm, const Residual& x) {
  if (!x.delta) return x.stream;
  return apply<Add>(context.tape, {.multiplier = norm.delta_multiplier}, {x.stream, x.delta});
}

Residual DecoderBlock::run(LayerContext& context, Residual x, std::string_view prefix) const {
  context.tape.begin_segment(cat(prefix, "attention"));
  x = latent_attention ? run_sublayer(context, attention_norm, *latent_attention, std::move(x))
                       : run_sublayer(context, attention_norm, attention, std::move(x));
  if (moe) {
    x = run_sublayer(context, mlp_norm, *moe, std::move(x));  // begins the others
  } else {
    context.tape.end_segment();
    context.tape.begin_segment(cat(prefix, "mlp"));
    x = run_sublayer(context, mlp_norm, mlp, std::move(x));
  }
  context.tape.end_segment();
  return x;
}

}  // namespace shoestring
