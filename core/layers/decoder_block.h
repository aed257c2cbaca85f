#pragma once
// One pre-norm block as segments: attention and mlp, or, of a sparse block, attention (with the
// router), dispatch, experts, combine and, where there is one, the shared expert; dispatch and
// combine do nothing but move rows. What flows between blocks is the residual stream with the last
// sub-layer's contribution not yet added: the next norm adds it while it reads.

#include <optional>
#include <string_view>

#include "core/layers/attention.h"
#include "core/layers/mla.h"
#include "core/layers/mlp.h"
#include "core/layers/moe.h"

namespace shoestring {

struct Residual {
  Value stream;  // [T, d]
  Value delta;   // [T, d], or empty at the start of the model
};

// Adds delta to the stream and normalises: {sum, normalised sum * gain}.
struct NormLayer {
  const Param* gain = nullptr;  // [d]
  double epsilon = 1e-5;
  double delta_multiplier = 1;
};

struct DecoderBlock {
  NormLayer attention_norm, mlp_norm;
  AttentionLayer attention;
  std::optional<MlaLayer> latent_attention;  // instead of `attention`
  MlpLayer mlp;
  std::optional<MoeLayer> moe;  // instead of `mlp`

  // `prefix` ("layers.3.", "mtp.0.") names the segments ("layers.3.attention").
  Residual run(LayerContext& context, Residual x, std::string_view prefix) const;
};

// {sum, normalised}: the fused norm by itself, also used before the head.
std::array<Value, 2> run_norm(LayerContext& context, const NormLayer& norm, const Residual& x);
// stream + multiplier * delta as a value of its own.
Value run_sum(LayerContext& context, const NormLayer& norm, const Residual& x);

}  // namespace shoestring
