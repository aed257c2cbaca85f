#include "launcher/config_warnings.h"

#include <algorithm>
#include <optional>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/config_complaints.h"
#include "launcher/kept_matrices.h"
#include "launcher/mesh_layout.h"
#include "launcher/plan.h"

namespace shoestring {
namespace {

// A rule that holds for the config: these keys have no effect.
struct Idle {
  std::vector<std::string> keys;  // whole, or a section with a dot behind it
  std::string why;

  bool covers(const std::string& key) const {
    return std::any_of(keys.begin(), keys.end(), [&](const std::string& k) {
      return k.ends_with('.') ? key.starts_with(k) : key == k;
    });
  }
};

class Rules {
 public:
  void add(bool idle, std::vector<std::string> keys, std::string why) {
    if (idle) rules_.push_back({std::move(keys), std::move(why)});
  }
  // The first reason; empty when the key has an effect.
  std::string why(const std::string& key) const {
    for (const Idle& rule : rules_) {
      if (rule.covers(key)) return rule.why;
    }
    return "";
  }

 private:
  std::vector<Idle> rules_;
};

void add_loop(const RunConfig& c, Rules& rules) {
  rules.add(c.train.sample_every == 0,
            {"train.sample_prompt", "train.sample_tokens", "train.sample_temperature"},
            "train.sample_every = 0 asks for no samples");
  rules.add(c.train.evaluate_sequences == 0, {"train.evaluate_every"},
            "train.evaluate_sequences = 0 leaves nothing to evaluate");
  const std::string copy = "checkpoint.memory_limit_gb";
  rules.add(c.checkpoint.every == 0, {"checkpoint.background", copy},
            "checkpoint.every = 0 saves at the end only, without a copy");
  rules.add(!c.checkpoint.background, {copy}, "checkpoint.background = false makes no copy");
  rules.add(c.cost.price_per_hour == 0, {"cost.chips", "cost.currency"},
            "cost.price_per_hour = 0 reports no money");
}

void add_model(const RunConfig& c, Rules& rules) {
  const ModelConfig& m = c.model;
  rules.add(m.mla.on(), {"model.head_dim"},
            "model.mla.kv_latent > 0: the widths of latent attention's heads are in model.mla");
  rules.add(m.mla.on() && m.kv_heads != m.heads, {"model.kv_heads"},
            "model.mla.kv_latent > 0: in latent attention each of model.heads has its own key and "
            "value");
  rules.add(!m.mla.on(), {"model.mla."}, "model.mla.kv_latent = 0: no latent attention");
  rules.add(!m.moe.on(), {"model.moe."}, "model.moe.experts = 0: the model is dense");
  rules.add(m.moe.groups == 1, {"model.moe.group_score"}, "model.moe.groups = 1: all in one group");
  rules.add(m.mtp.depth == 0, {"model.mtp.weight"}, "model.mtp.depth = 0: no modules");
  rules.add(m.tied_embeddings, {"model.init.head", "model.lr_multipliers.head"},
            "model.tied_embeddings: the head is the embedding");
  rules.add(!m.qkv_bias, {"model.lr_multipliers.bias"}, "model.qkv_bias = false: no biases");
}

// Also of what stages turn on later.
void add_rope(const RunConfig& c, Rules& rules) {
  const auto used = [&](std::string_view scaling) {
    return c.model.rope.scaling == scaling ||
           std::any_of(c.stages.begin(), c.stages.end(), [&](const StageSection& stage) {
             return stage.rope_scaling && *stage.rope_scaling == scaling;
           });
  };
  const std::string at = "model.rope.";
  const std::string why =
      cat("model.rope.scaling = \"", c.model.rope.scaling, "\" does not use it");
  rules.add(!used("llama3"), {at + "low_freq_factor", at + "high_freq_factor"}, why);
  rules.add(!used("llama3") && !used("yarn"), {at + "original_max_positions"}, why);
  rules.add(!used("yarn"),
            {at + "beta_fast", at + "beta_slow", at + "attention_factor", at + "mscale",
             at + "mscale_all_dim"},
            why);
}

// Choices of operands that no product in FP8 reads. `p` says every choice.
void add_operands(const PrecisionConfig& p, bool experts, Rules& rules) {
  const std::string at = "precision.", fprop = at + "fprop", dgrad = at + "dgrad",
                    wgrad = at + "wgrad";
  const auto add = [&](bool idle, const std::string& operand, const std::string& why) {
    rules.add(idle, {operand + "_format", operand + "_tile", operand + "_scales"}, why);
  };
  const bool inputs = *p.fprop || *p.wgrad;
  const std::string no_inputs =
      cat(fprop, " and ", wgrad, " are false: no input is multiplied in FP8");
  rules.add(!*p.wgrad, {at + "copy", at + "attention_output_copy"},
            cat(wgrad, " = false keeps inputs in train.dtype"));
  add(!*p.dgrad && !*p.wgrad, at + "gradient",
      cat(dgrad, " and ", wgrad, " are false: no gradient is multiplied in FP8"));
  add(!*p.fprop && !*p.dgrad, at + "weight",
      cat(fprop, " and ", dgrad, " are false: no weight is multiplied in FP8"));
  // Gate and up are kept in the inputs' encoding.
  add(!inputs && *p.swiglu_inputs == "full", at + "activation",
      cat(no_inputs, ", and precision.swiglu_inputs = \"full\" keeps none"));
  rules.add(!inputs, {at + "attention_output_scales"}, no_inputs);
  rules.add(!experts, {at + "dispatch_scales"}, "no layer of the model has experts");
}

// Sums go to f32 at the end of a scale, too, which most recipes have every 128 products or sooner.
void add_promotion(const PrecisionConfig& p, Rules& rules) {
  PrecisionConfig preset = p;
  preset.promotion.reset();
  const std::vector<int64_t> depths = promotion_depths(resolve(p));
  if (depths != promotion_depths(resolve(preset))) return;
  const int64_t most = *std::max_element(depths.begin(), depths.end());
  rules.add(true, {"precision.promotion"},
            *p.accumulator == "fast"
                ? cat("precision.accumulator = \"fast\" adds to an f32 total where a scale ends, ",
                      "and every 128 products")
                : cat("sums are added to an f32 total where a scale ends, which is every ", most,
                      " products"));
}

void add_precision(const RunConfig& c, Rules& rules) {
  PrecisionConfig p = c.precision;
  fill_in(p);
  const std::string dog = "precision.watchdog.";
  rules.add(!p.on(), {"precision."}, "precision.recipe = \"bf16\" multiplies nothing in FP8");
  if (!p.on()) return;
  add_operands(p, any_sparse_layer(c.model), rules);
  add_promotion(p, rules);
  rules.add(p.watchdog.every == 0, {dog}, "precision.watchdog.every = 0: nothing is compared");
  rules.add(p.watchdog.every > c.train.steps, {dog},
            cat("the first comparison would be in step precision.watchdog.every = ",
                p.watchdog.every, ", and the run ends after train.steps = ", c.train.steps));
  rules.add(p.watchdog.limit == 0, {dog + "strikes", dog + "chip_speedup"},
            "precision.watchdog.limit = 0 only reports");
  rules.add(*p.accumulator != "hopper", {"precision.accumulator_bits"},
            "only precision.accumulator = \"hopper\" has them");
}

void add_optimiser(const RunConfig& c, Rules& rules) {
  const OptimConfig& o = c.optim;
  const ScheduleConfig& s = o.schedule;
  rules.add(o.optimizer != "muon", {"optim.muon."}, "optim.optimizer is \"adamw\"");
  RunConfig filled = c;
  fill_in(filled);  // a recipe may set the moments
  rules.add(filled.optim.moments == "f32" && c.train.dtype == "f32", {"optim.stochastic_rounding"},
            "optim.moments and train.dtype are f32, so nothing is rounded to bf16");
  rules.add(o.skip.loss_z == 0 && o.skip.norm_z == 0, {"optim.skip.window", "optim.skip.limit"},
            "optim.skip.loss_z and optim.skip.norm_z are 0: no step is skipped");
  rules.add(c.train.steps <= o.skip.window, {"optim.skip.loss_z", "optim.skip.norm_z"},
            cat("the first optim.skip.window = ", o.skip.window,
                " steps are never skipped, and the run ends after train.steps = ", c.train.steps));
  const std::string at = "optim.schedule.";
  const std::string why = cat("optim.schedule.kind = \"", s.kind, "\" does not use it");
  rules.add(s.kind == "constant", {at + "total"}, why);
  rules.add(s.kind == "constant" || s.kind == "multi_step", {at + "min_ratio"}, why);
  rules.add(s.kind != "wsd", {at + "decay_fraction", at + "decay_shape"}, why);
  rules.add(s.kind != "multi_step", {at + "milestones", at + "factors"}, why);
  rules.add(s.kind != "deepseek_v3",
            {at + "flat_until", at + "decay_until", at + "final_from", at + "final_ratio"}, why);
}

// `end`: the tokens of the whole run.
void add_data(const RunConfig& c, int64_t end, Rules& rules) {
  const auto& sources = c.data.sources;
  const bool one = sources.size() == 1 && sources[0].weight > 0;
  rules.add(one, {"data.sources.0.weight"}, "there is one source, so all samples are its own");
  const bool own = !sources.empty() && std::all_of(sources.begin(), sources.end(),
                                                   [](auto& s) { return s.held_out.has_value(); });
  rules.add(own, {"data.held_out"}, "every source has a held_out of its own");
  for (size_t i = 0; i < c.stages.size(); ++i) {
    rules.add(c.stages[i].from_tokens >= end, {cat("stages.", i, ".from_tokens")},
              cat("the run ends after ", end, " tokens (train.steps = ", c.train.steps, ")"));
  }
}

// Settings that together leave nothing of what a section is for.
struct Whole {
  std::vector<std::string> keys;  // that may be to blame, the likeliest first
  std::string what;
};

// Entries of keep_bf16, unless it is the default, which is for models of every kind.
std::vector<Whole> idle_entries(const RunConfig& c) {
  const std::vector<std::string>& kept = c.precision.keep_bf16;
  std::vector<Whole> list;
  if (!c.precision.on() || kept == PrecisionConfig().keep_bf16) return list;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (keeps_a_matrix(kept[i], c.precision, c.model)) continue;
    const bool router = is_part_of_router(kept[i]);
    list.push_back({{cat("precision.keep_bf16.", i), "precision.keep_bf16"},
                    cat("precision.keep_bf16: \"", kept[i], "\" has no effect: ",
                        router ? "routers are never multiplied in FP8"
                               : "it stands in the name of no matrix of this model that FP8 would "
                                 "multiply")});
  }
  return list;
}

// Modules that look further ahead than the longest sequence reaches.
std::vector<Whole> idle_modules(const RunConfig& c, const std::vector<LoadSegment>& segments) {
  int64_t length = 0;
  for (const LoadSegment& s : segments) length = std::max(length, s.length);
  const int64_t depth = c.model.mtp.depth, with_labels = length - 1;
  if (depth <= with_labels) return {};
  const int64_t idle = depth - with_labels;
  return {{{"model.mtp.depth", "train.sequence_length"},
           cat("model.mtp.depth = ", depth, ": the last ", counted(idle, "module", "modules"),
               " of ", depth, " will learn nothing, because module k predicts k + 1 tokens ahead ",
               "and sequences are ", length, " tokens long (train.sequence_length)")}};
}

std::vector<Whole> whole_sections(const RunConfig& c, const std::vector<LoadSegment>& segments) {
  const ModelConfig& m = c.model;
  std::vector<Whole> list;
  const bool experts = any_sparse_layer(m);
  if (m.moe.on() && !experts) {
    list.push_back(
        {{"model.moe.first_dense", "model.moe.every", "model.moe.experts"},
         cat("none of the ", m.layers, " layers has experts, so model.moe has no effect: ",
             "model.moe.first_dense = ", m.moe.first_dense, ", model.moe.every = ", m.moe.every,
             ", model.moe.shift = ", m.moe.shift)});
  }
  if (experts && m.moe.scaling == 0) {
    list.push_back({{"model.moe.scaling"},
                    "model.moe.scaling = 0 multiplies the gates by 0: routed experts add nothing "
                    "and learn nothing"});
  }
  if (c.precision.on() && !any_block_in_fp8(c.precision, m)) {
    const std::string at = "precision.";
    list.push_back(
        {{at + "first_layers_bf16", at + "last_layers_bf16", at + "keep_bf16", at + "recipe"},
         cat("precision.recipe = \"", c.precision.recipe, "\" multiplies nothing in FP8 in any of ",
             "the ", m.layers,
             " layers: precision.first_layers_bf16 = ", c.precision.first_layers_bf16.value_or(0),
             ", precision.last_layers_bf16 = ", c.precision.last_layers_bf16.value_or(0),
             " and precision.keep_bf16 leave none")});
  }
  for (Whole& entry : idle_entries(c)) list.push_back(std::move(entry));
  for (Whole& entry : idle_modules(c, segments)) list.push_back(std::move(entry));
  return list;
}

// Whoever turns a feature off by --set knows that the file's settings of it rest.
bool turned_off_by_override(const std::string& why, const KeyPositions& positions) {
  return std::any_of(positions.begin(), positions.end(), [&](const auto& p) {
    return by_override(p.second) && !p.first.empty() && names_key(why, p.first);
  });
}

// The first of the keys that somebody set, else the last.
std::string first_set(const KeyPositions& positions, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (positions.contains(key)) return key;
  }
  return keys.back();
}

std::string position_of(const KeyPositions& positions, const std::string& key) {
  const auto at = positions.find(key);
  return at == positions.end() ? "" : at->second;
}

std::string place_of(const KeyPositions& positions, const std::string& key) {
  const std::string position = position_of(positions, key);
  return position.empty() ? "" : position + ": ";
}

// Some ranks may have fewer micro-batches than others, but none at all is a waste of machines.
std::string warning_of_idle_ranks(const LoadSegment& s, int64_t ranks) {
  const std::string from = s.from_tokens > 0 ? cat(" from ", s.from_tokens, " tokens on") : "";
  return cat(ranks, " ranks share ", s.micro_batches,
             s.micro_batches == 1 ? " micro-batch" : " micro-batches", " a step", from,
             " (a batch of ", s.micro_batches * s.sequences, " sequences in micro-batches of ",
             s.sequences, "), which leaves ", ranks - s.micro_batches,
             " without work; start at most ", s.micro_batches,
             ", or set a larger train.batch or a smaller train.micro_batch");
}

bool nothing_held_out(const RunConfig& c) {
  const auto& sources = c.data.sources;
  return c.train.evaluate_sequences > 0 && !sources.empty() &&
         std::all_of(sources.begin(), sources.end(), [&](const SourceConfig& source) {
           return source.held_out.value_or(c.data.held_out) == 0;
         });
}

// Nothing of a run that cannot be: its start says why.
std::optional<int64_t> tokens_of_run(const std::vector<LoadSegment>& segments, int64_t steps) {
  try {
    return BatchSchedule(segments).at(steps).first_token;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void add_layout(const RunConfig& config, int64_t ranks, Rules& rules) {
  rules.add(!has_use_for_zero(config, ranks), {"parallel.zero_stage"},
            config.mesh.tp * config.mesh.pp == 1
                ? "a single rank has nobody to share the optimiser's state with"
                : "no two ranks hold the same part of the model, so none shares the optimiser's "
                  "state");
  rules.add(config.mesh.tp == 1, {"parallel.tensor_chunks"},
            "mesh.tp = 1: no rows travel between tensor ranks");
  rules.add(config.mesh.cp == 1, {"parallel.context"},
            "mesh.cp = 1: every rank has whole sequences");
  rules.add(config.mesh.pp == 1,
            {"pipeline.schedule", "pipeline.split", "pipeline.layers", "pipeline.chunks"},
            "mesh.pp = 1: there is no pipeline; --set mesh.pp=2 makes one of 2 ranks");
  const bool alone = ranks * config.mesh.tp * config.mesh.cp * config.mesh.pp == 1;
  rules.add(alone, {"mesh.order", "mesh.ranks_per_node"}, "a single rank has no neighbours");
}

}  // namespace

bool any_sparse_layer(const ModelConfig& model) {
  for (int64_t i = 0; i < model.layers; ++i) {
    if (model.moe.sparse(i)) return true;
  }
  return false;
}

std::vector<std::string> config_warnings(const RunConfig& config, int64_t ranks,
                                         const KeyPositions& positions) {
  std::vector<LoadSegment> segments = load_segments(config);
  const auto end = tokens_of_run(segments, config.train.steps);
  if (!end) return {};
  std::erase_if(segments, [&](const LoadSegment& s) { return s.from_tokens >= *end; });
  Rules rules;
  add_loop(config, rules);
  add_model(config, rules);
  add_rope(config, rules);
  add_precision(config, rules);
  add_optimiser(config, rules);
  add_data(config, *end, rules);
  add_layout(config, ranks, rules);
  RunConfig plain;
  // A default that only this model makes wrong: who writes it means something by it.
  if (positions.contains("model.kv_heads")) plain.model.kv_heads = config.model.heads;
  // A run's own config says every choice of its recipe.
  plain.precision.recipe = config.precision.recipe;
  fill_in(plain.precision);
  plain.data.sources.resize(config.data.sources.size());
  plain.stages.resize(config.stages.size());
  std::vector<std::string> warnings;
  for (const ConfigDifference& d : diff_configs(config, plain)) {
    const std::string why = d.left.empty() ? "" : rules.why(d.key);
    if (why.empty()) continue;
    const bool asked_for = by_override(position_of(positions, d.key));
    if (!asked_for && turned_off_by_override(why, positions)) continue;
    warnings.push_back(
        cat(place_of(positions, d.key), d.key, " = ", d.left, " has no effect: ", why));
  }
  for (const Whole& whole : whole_sections(config, segments)) {
    const std::string key = first_set(positions, whole.keys);
    warnings.push_back(cat(place_of(positions, key), whole.what));
  }
  if (nothing_held_out(config)) {
    warnings.push_back(
        cat(place_of(positions, "data.held_out"), "data.held_out = 0: no document is held out, so ",
            "nothing will be validated; set a fraction above 0, or train.evaluate_sequences = 0 ",
            "where that is meant"));
  }
  const auto fewest = std::min_element(
      segments.begin(), segments.end(),
      [](const LoadSegment& a, const LoadSegment& b) { return a.micro_batches < b.micro_batches; });
  if (ranks > fewest->micro_batches) {
    warnings.push_back(place_of(positions, "parallel.data_parallel") +
                       warning_of_idle_ranks(*fewest, ranks));
  }
  return warnings;
}

}  // namespace shoestring
