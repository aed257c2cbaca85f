#pragma once
// Which numbers training in FP8 makes how: the config section `precision`, and what it resolves to.
//
// A preset fills in every choice; a key that is given replaces the preset's. What no recipe touches
// stays in train.dtype: embedding, output head, norms, attention itself, and the matrices named in
// keep_bf16 (DeepSeek-V3 report, section 3.3.1).
//
//   bf16             no FP8
//   deepseek_v3      1 x 128 activations and gradients, 128 x 128 weights, E4M3, promotion every
//   128 per_tensor       one scale a tensor made from the tensor itself, gradients in E5M2: the
//   older way mxfp8            1 x 32 with powers of two for all operands (OCP microscaling)
//   block_gradients  deepseek_v3 with 128 x 128 blocks for gradients: what the report warns of

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/fp8/product.h"

namespace shoestring {

// How a value is kept for the backward pass.
enum class Fp8Copy : uint8_t { full, fp8, e5m6 };

struct Fp8Recipe {
  Fp8Encoding activation, gradient, weight;
  Fp8Encoding attention_output;  // activation of the product behind attention
  Fp8Encoding dispatch;          // activation of experts: what expert parallelism sends
  Fp8Encoding combine_gradient;  // gradient of their outputs: ditto, in backward
  bool fprop = true, dgrad = true, wgrad = true;
  Fp8Copy copy = Fp8Copy::fp8;             // of the inputs, for wgrad
  Fp8Copy attention_copy = Fp8Copy::e5m6;  // of the input of the product behind attention
  bool swiglu_inputs = true;               // kept in FP8, their product made again
  Fp8Arithmetic arithmetic = {};
  int64_t first_layers = 0, last_layers = 0;  // that stay bf16
  std::vector<std::string> keep_bf16 = {};    // parts of the names of matrices that do, too
};

// Every so often a micro-batch is also multiplied in bf16 (launcher/watchdog.h).
struct WatchdogConfig {
  int64_t every = 0;
  double limit = 0.15;
  int64_t strikes = 1;
  double chip_speedup = 2;

  template <class V>
  void visit(V&& v) {
    v("every", every,
      Field{.help = "compare FP8 products with bf16 ones on a micro-batch every so many steps; 0 = "
                    "never",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("limit", limit,
      Field{.help = "relative error (norm of the difference over norm) of a layer's product beyond "
                    "which it counts as failing; 0 = only report",
            .min = 0,
            .max = 1e9});
    v("strikes", strikes,
      Field{.help = "comparisons in a row that must fail before the layer falls back to bf16",
            .min = 1,
            .max = 1e6});
    v("chip_speedup", chip_speedup,
      Field{.help = "how much faster the chips that are paid for multiply FP8 than bf16: prices a "
                    "fallback",
            .min = 1,
            .max = 100});
  }
};

struct PrecisionConfig {
  std::string recipe = "bf16";
  std::optional<std::string> activation_format, gradient_format, weight_format;
  std::optional<std::string> activation_tile, gradient_tile, weight_tile;
  std::optional<std::string> activation_scales, gradient_scales, weight_scales;
  std::optional<std::string> attention_output_scales, dispatch_scales;
  std::optional<bool> fprop, dgrad, wgrad;
  std::optional<std::string> copy, attention_output_copy, swiglu_inputs;
  std::optional<std::string> accumulator;
  std::optional<int64_t> promotion, accumulator_bits;
  std::optional<int64_t> first_layers_bf16, last_layers_bf16;
  std::optional<std::string> moments;
  std::vector<std::string> keep_bf16 = {"router", "projection"};
  WatchdogConfig watchdog = {};

  bool on() const { return recipe != "bf16"; }
  template <class V>
  void visit(V&& v);
  void validate(Complaints& c) const;
};

// Fills every unset key with the preset's choice, so that the run's config says all of them.
void fill_in(PrecisionConfig& config);
// Usage error where the config is not on(): there is no recipe then.
Fp8Recipe resolve(PrecisionConfig config);
// How far the sums of each kind of product that is FP8 go before they are added to an f32 total
// (promotion_depth); 0: to their end.
std::vector<int64_t> promotion_depths(const Fp8Recipe& recipe);

template <class V>
void PrecisionConfig::visit(V&& v) {
  constexpr std::string_view formats = "e4m3|e5m2", scales = "plain|power_of_two";
  constexpr std::string_view tiles = "1x128|1x32|128x128|tensor", copies = "full|fp8|e5m6";
  v("recipe", recipe,
    Field{.help = "what is multiplied in FP8 and how; the keys below replace single choices of it",
          .choices = "bf16|deepseek_v3|per_tensor|mxfp8|block_gradients"});
  v("activation_format", activation_format, Field{.help = "of inputs", .choices = formats});
  v("gradient_format", gradient_format,
    Field{.help = "of the gradients of outputs", .choices = formats});
  v("weight_format", weight_format, Field{.help = "of weights", .choices = formats});
  v("activation_tile", activation_tile,
    Field{.help = "tokens x channels that share a scale; for the weight gradient turned by 90 "
                  "degrees",
          .choices = tiles});
  v("gradient_tile", gradient_tile, Field{.help = "the same of gradients", .choices = tiles});
  v("weight_tile", weight_tile,
    Field{.help = "outputs x inputs of a weight that share a scale", .choices = tiles});
  v("activation_scales", activation_scales, Field{.help = "of activations", .choices = scales});
  v("gradient_scales", gradient_scales, Field{.help = "of gradients", .choices = scales});
  v("weight_scales", weight_scales, Field{.help = "of weights", .choices = scales});
  v("attention_output_scales", attention_output_scales,
    Field{.help = "of the input of the product behind attention", .choices = scales});
  v("dispatch_scales", dispatch_scales,
    Field{.help = "of the tokens that experts are given, and of the gradients of their outputs: "
                  "what expert parallelism sends",
          .choices = scales});
  v("fprop", fprop, Field{.help = "forward products in FP8"});
  v("dgrad", dgrad, Field{.help = "products for gradients of inputs in FP8"});
  v("wgrad", wgrad, Field{.help = "products for gradients of weights in FP8"});
  v("copy", copy,
    Field{.help = "how inputs are kept for the weight gradient: full is train.dtype",
          .choices = copies});
  v("attention_output_copy", attention_output_copy,
    Field{.help = "the same of the input of the product behind attention", .choices = copies});
  v("swiglu_inputs", swiglu_inputs,
    Field{.help = "how gate and up are kept; in fp8 their product is made again in backward",
          .choices = "full|fp8"});
  v("accumulator", accumulator,
    Field{.help = "exact: sums of a chunk rounded once; fast: any order in f32; hopper: the "
                  "tensor cores' alignment and truncation",
          .choices = "exact|fast|hopper"});
  v("promotion", promotion,
    Field{.help = "products after which a sum is added to an f32 total, if no scale ends before; 0 "
                  "= no sooner than that (fast: than 128)",
          .min = 0,
          .max = 512});
  v("accumulator_bits", accumulator_bits,
    Field{.help = "fraction bits of the hopper accumulator", .min = 1, .max = 23});
  v("first_layers_bf16", first_layers_bf16,
    Field{.help = "blocks at the beginning without FP8", .min = 0, .max = 1e5});
  v("last_layers_bf16", last_layers_bf16,
    Field{.help = "blocks at the end without FP8", .min = 0, .max = 1e5});
  v("moments", moments,
    Field{.help = "element type of the optimiser's moments; optim.moments, where it is given, wins",
          .choices = "f32|bf16"});
  v("keep_bf16", keep_bf16,
    Field{.help = "matrices whose names contain one of these stay in train.dtype (of prediction "
                  "modules, \"projection\" joins embedding and stream)"});
  v("watchdog", watchdog, Field{.help = "comparison with bf16 while training"});
}

}  // namespace shoestring
