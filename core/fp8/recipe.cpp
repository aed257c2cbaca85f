#include "core/fp8/recipe.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

template <class T>
void default_to(std::optional<T>& field, T value) {
  if (!field) field = std::move(value);
}

// What a preset says of the three kinds of operand.
struct Preset {
  std::string format = "e4m3", gradient_format = "e4m3";
  std::string activation_tile = "1x128", gradient_tile = "1x128", weight_tile = "128x128";
  std::string scales = "plain", attention_scales = "power_of_two", attention_copy = "e5m6";
  std::string moments = "bf16";
};
Preset preset_of(const std::string& recipe) {
  if (recipe == "per_tensor") {
    return {.gradient_format = "e5m2",
            .activation_tile = "tensor",
            .gradient_tile = "tensor",
            .weight_tile = "tensor",
            .attention_scales = "plain",
            .attention_copy = "fp8",
            .moments = "f32"};
  }
  if (recipe == "mxfp8") {
    return {.activation_tile = "1x32",
            .gradient_tile = "1x32",
            .weight_tile = "1x32",
            .scales = "power_of_two",
            .attention_copy = "fp8",
            .moments = "f32"};
  }
  if (recipe == "block_gradients") return {.gradient_tile = "128x128"};
  return {};
}

Dtype format_from(const std::string& name) {
  return name == "e5m2" ? Dtype::f8e5m2 : Dtype::f8e4m3;
}
Fp8Tile tile_from(const std::string& name) {
  if (name == "1x32") return {1, 32};
  if (name == "128x128") return {128, 128};
  if (name == "tensor") return {0, 0};
  return {1, 128};
}
ScaleKind scales_from(const std::string& name) {
  return name == "power_of_two" ? ScaleKind::power_of_two : ScaleKind::plain;
}
Fp8Copy copy_from(const std::string& name) {
  return name == "full" ? Fp8Copy::full : name == "e5m6" ? Fp8Copy::e5m6 : Fp8Copy::fp8;
}
Accumulator accumulator_from(const std::string& name) {
  if (name == "exact") return Accumulator::exact;
  return name == "hopper" ? Accumulator::hopper : Accumulator::fast;
}

}  // namespace

void fill_in(PrecisionConfig& c) {
  if (!c.on()) return;
  const Preset preset = preset_of(c.recipe);
  default_to(c.activation_format, preset.format);
  default_to(c.gradient_format, preset.gradient_format);
  default_to(c.weight_format, preset.format);
  default_to(c.activation_tile, preset.activation_tile);
  default_to(c.gradient_tile, preset.gradient_tile);
  default_to(c.weight_tile, preset.weight_tile);
  default_to(c.activation_scales, preset.scales);
  default_to(c.gradient_scales, preset.scales);
  default_to(c.weight_scales, preset.scales);
  default_to(c.attention_output_scales, preset.attention_scales);
  default_to(c.dispatch_scales, preset.attention_scales);
  default_to(c.fprop, true);
  default_to(c.dgrad, true);
  default_to(c.wgrad, true);
  default_to<std::string>(c.copy, "fp8");
  default_to(c.attention_output_copy, preset.attention_copy);
  default_to<std::string>(c.swiglu_inputs, "fp8");
  default_to<std::string>(c.accumulator, "fast");
  default_to<int64_t>(c.promotion, 128);
  default_to<int64_t>(c.accumulator_bits, 13);
  default_to<int64_t>(c.first_layers_bf16, 0);
  default_to<int64_t>(c.last_layers_bf16, 0);
  default_to(c.moments, preset.moments);
}

Fp8Recipe resolve(PrecisionConfig c) {
  if (!c.on()) {
    fail_usage(cat("precision.recipe = \"", c.recipe,
                   "\" multiplies nothing in FP8 and has no choices to resolve"));
  }
  fill_in(c);
  Fp8Recipe r;
  r.activation = {format_from(*c.activation_format), tile_from(*c.activation_tile),
                  scales_from(*c.activation_scales)};
  r.gradient = {format_from(*c.gradient_format), tile_from(*c.gradient_tile),
                scales_from(*c.gradient_scales)};
  r.weight = {format_from(*c.weight_format), tile_from(*c.weight_tile),
              scales_from(*c.weight_scales)};
  r.attention_output = r.activation;
  r.attention_output.scales = scales_from(*c.attention_output_scales);
  r.dispatch = r.activation;
  r.combine_gradient = r.gradient;
  r.dispatch.scales = r.combine_gradient.scales = scales_from(*c.dispatch_scales);
  r.fprop = *c.fprop;
  r.dgrad = *c.dgrad;
  r.wgrad = *c.wgrad;
  r.copy = copy_from(*c.copy);
  r.attention_copy = copy_from(*c.attention_output_copy);
  r.swiglu_inputs = *c.swiglu_inputs == "fp8";
  r.arithmetic = {.accumulator = accumulator_from(*c.accumulator),
                  .promotion = *c.promotion,
                  .bits = static_cast<int>(*c.accumulator_bits)};
  r.first_layers = *c.first_layers_bf16;
  r.last_layers = *c.last_layers_bf16;
  r.keep_bf16 = c.keep_bf16;
  return r;
}

std::vector<int64_t> promotion_depths(const Fp8Recipe& r) {
  // Tiles are turned so that their columns lie along k.
  const auto depth = [&r](const Fp8Encoding& a, const Fp8Encoding& b) {
    const auto reach = [](const Fp8Encoding& e) {
      return Fp8Reach{e.tile.columns, e.scales == ScaleKind::power_of_two};
    };
    return promotion_depth(r.arithmetic, reach(a), reach(b));
  };
  std::vector<int64_t> list;
  for (const Fp8Encoding& x : {r.activation, r.attention_output, r.dispatch}) {
    if (r.fprop) list.push_back(depth(x, r.weight));
  }
  for (const Fp8Encoding& dy : {r.gradient, r.combine_gradient}) {
    if (r.dgrad) list.push_back(depth(dy, r.weight));
  }
  for (const Fp8Encoding& x : {r.activation, r.attention_output, r.dispatch}) {
    for (const Fp8Encoding& dy : {r.gradient, r.combine_gradient}) {
      if (r.wgrad) list.push_back(depth(dy, x));
    }
  }
  return list;
}

void PrecisionConfig::validate(Complaints& c) const {
  if (!on()) {
    if (watchdog.every > 0) c.add("watchdog.every", "compares FP8 with bf16, but recipe is bf16");
    return;
  }
  if (promotion && *promotion != 0 && *promotion != 32 && *promotion != 64 && *promotion != 128 &&
      *promotion != 256 && *promotion != 512) {
    c.add("promotion", cat("must be 0, 32, 64, 128, 256 or 512 but is ", *promotion));
  }
  PrecisionConfig all = *this;
  fill_in(all);
  if (!*all.fprop && !*all.dgrad && !*all.wgrad) {
    c.add("fprop", "is false like dgrad and wgrad: nothing is left in FP8; use recipe = \"bf16\"");
  }
  if (*all.copy == "e5m6") {
    c.add("copy", "e5m6 is for attention_output_copy; inputs are kept full or as fp8");
  }
}

}  // namespace shoestring
