#pragma once
// The `optim` section of a run's config: update rule, schedule, clipping, skipping, averaging and
// the batch-size ramp.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"

namespace shoestring {

struct MuonConfig {
  double momentum = 0.95;
  bool nesterov = true;
  int64_t steps = 5;
  std::string scale = "moonlight";
  double lr_multiplier = 1;
  std::string products = "f32";

  template <class V>
  void visit(V&& v) {
    v("momentum", momentum, Field{.help = "decay of the momentum buffer", .min = 0, .max = 0.9999});
    v("nesterov", nesterov, Field{.help = "look one step ahead along the momentum"});
    v("steps", steps, Field{.help = "Newton-Schulz iterations", .min = 1, .max = 20});
    v("scale", scale,
      Field{.help =
                "step factor: moonlight 0.2*sqrt(max(rows, columns)), which lets AdamW's lr and "
                "decay be reused; keller sqrt(max(1, rows/columns))",
            .choices = "moonlight|keller"});
    v("lr_multiplier", lr_multiplier,
      Field{.help = "learning rate of Muon's matrices over optim.lr", .min = 0, .max = 1e6});
    v("products", products,
      Field{.help = "element type of the Newton-Schulz products", .choices = "f32|bf16"});
  }
};

struct SkipConfig {
  double loss_z = 0, norm_z = 0;
  int64_t window = 128;
  int64_t limit = 5;

  template <class V>
  void visit(V&& v) {
    v("loss_z", loss_z,
      Field{
          .help = "skip a step whose loss lies more deviations above the window's mean; 0 = never",
          .min = 0,
          .max = 1e9});
    v("norm_z", norm_z,
      Field{.help = "the same for the gradient norm; 0 = never", .min = 0, .max = 1e9});
    v("window", window,
      Field{
          .help = "steps the mean and deviation are taken over; nothing is skipped before so many",
          .unit = "steps",
          .min = 2,
          .max = 1e6});
    v("limit", limit,
      Field{.help = "so many steps in a row are skipped at most; then the change is taken for a "
                    "lasting one",
            .unit = "steps",
            .min = 1,
            .max = 1e6});
  }
};

struct ScheduleConfig {
  std::string kind = "cosine";
  std::string drive = "tokens";
  int64_t warmup_steps = 0, warmup_tokens = 0;
  int64_t total = 0;
  double min_ratio = 0.1;
  double decay_fraction = 0.2;
  std::string decay_shape = "sqrt";
  std::vector<double> milestones = {0.8, 0.9};
  std::vector<double> factors = {0.316, 0.316};
  // Fractions of DeepSeek-V3's 14.8T tokens (its report, section 4.2): flat to 10T, cosine over
  // 4.3T, flat for 333B, a last drop for 167B.
  double flat_until = 10.0 / 14.8, decay_until = 14.3 / 14.8, final_from = 14.633 / 14.8;
  double final_ratio = 7.3 / 220;

  template <class V>
  void visit(V&& v) {
    v("kind", kind,
      Field{.help = "course of the learning rate after the warm-up",
            .choices = "constant|linear|cosine|wsd|multi_step|deepseek_v3"});
    v("drive", drive,
      Field{.help = "what progress is measured in; tokens stay right when the batch size ramps",
            .choices = "tokens|steps"});
    v("warmup_steps", warmup_steps,
      Field{.help = "linear warm-up, in steps (or set warmup_tokens)",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("warmup_tokens", warmup_tokens,
      Field{.help = "linear warm-up, in tokens", .unit = "tokens", .min = 0, .max = 1e18});
    v("total", total,
      Field{.help = "length of the schedule in the unit of `drive`; 0 = the run's length",
            .min = 0,
            .max = 1e18});
    v("min_ratio", min_ratio,
      Field{.help = "learning rate at the end over the highest", .min = 0, .max = 1});
    v("decay_fraction", decay_fraction,
      Field{.help = "wsd: last part of the run that decays", .min = 0, .max = 1});
    v("decay_shape", decay_shape,
      Field{.help = "wsd: straight line or 1 - sqrt", .choices = "linear|sqrt"});
    v("milestones", milestones,
      Field{.help = "multi_step: fractions of the run after which a factor applies",
            .min = 0,
            .max = 1});
    v("factors", factors,
      Field{.help = "multi_step: one factor per milestone", .min = 0, .max = 1e6});
    v("flat_until", flat_until,
      Field{.help = "deepseek_v3: fraction at which the cosine starts", .min = 0, .max = 1});
    v("decay_until", decay_until,
      Field{.help = "deepseek_v3: fraction at which the cosine reaches min_ratio",
            .min = 0,
            .max = 1});
    v("final_from", final_from,
      Field{.help = "deepseek_v3: fraction at which final_ratio starts", .min = 0, .max = 1});
    v("final_ratio", final_ratio,
      Field{.help = "deepseek_v3: learning rate of the last part over the highest",
            .min = 0,
            .max = 1});
  }
  void validate(Complaints& c) const;
};

// The batch grows with the tokens seen: sequences[i] until tokens[i], then the run's own batch.
struct RampConfig {
  std::vector<int64_t> tokens = {}, sequences = {};

  template <class V>
  void visit(V&& v) {
    v("tokens", tokens,
      Field{.help = "token counts at which the batch size changes, ascending; empty = no ramp",
            .unit = "tokens",
            .min = 1,
            .max = 1e18});
    v("sequences", sequences,
      Field{.help = "batch size before each of these counts",
            .unit = "sequences",
            .min = 1,
            .max = 1e9});
  }
  void validate(Complaints& c) const;
};

struct OptimConfig {
  std::string optimizer = "adamw";
  double lr = 3e-4;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;
  std::optional<std::string> moments = {};  // f32 where neither this nor a recipe says otherwise
  bool stochastic_rounding = false;
  double ema_decay = 0;
  MuonConfig muon = {};
  SkipConfig skip = {};
  ScheduleConfig schedule = {};
  RampConfig ramp = {};

  template <class V>
  void visit(V&& v) {
    v("optimizer", optimizer,
      Field{.help = "muon updates hidden matrices and leaves the rest to AdamW",
            .choices = "adamw|muon"});
    v("lr", lr, Field{.help = "highest learning rate", .min = 0, .max = 1000});
    v("beta1", beta1, Field{.help = "decay of the first moment", .min = 0, .max = 0.999999});
    v("beta2", beta2, Field{.help = "decay of the second moment", .min = 0, .max = 0.99999999});
    v("epsilon", epsilon,
      Field{.help = "added to the root of the second moment", .min = 1e-30, .max = 1});
    v("weight_decay", weight_decay,
      Field{.help = "decoupled decay, times the learning rate; not on gains and biases",
            .min = 0,
            .max = 1e6});
    v("clip", clip,
      Field{.help = "largest global gradient norm; 0 = no clipping", .min = 0, .max = 1e30});
    v("moments", moments,
      Field{.help = "element type of the optimiser's state; none: what precision.recipe says, f32 "
                    "without one. bf16 rounds to nearest, which loses changes below 1/512: with "
                    "beta1 or beta2 above 0.99 use stochastic_rounding",
            .choices = "f32|bf16"});
    v("stochastic_rounding", stochastic_rounding,
      Field{.help = "round bf16 moments and bf16 compute weights stochastically (replayable)"});
    v("ema_decay", ema_decay,
      Field{.help = "decay of the running average of the weights; 0 = none",
            .min = 0,
            .max = 0.9999999});
    v("muon", muon, Field{.help = "Muon's own settings"});
    v("skip", skip, Field{.help = "steps to skip because their loss or norm stands out"});
    v("schedule", schedule, Field{.help = "learning rate over the run"});
    v("ramp", ramp, Field{.help = "batch size over the first tokens"});
  }
};

}  // namespace shoestring
