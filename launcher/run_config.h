#pragma once
// Everything a run is made of, in one typed config: sections of the launcher itself, and the
// sections that other folders own (core/fields.h says how they are written down).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/fp8/recipe.h"
#include "core/model/config.h"
#include "io/loader_config.h"
#include "launcher/config_fields.h"
#include "launcher/run_sections.h"
#include "optim/config.h"
#include "parallel/mesh_config.h"

namespace shoestring {

struct TrainSection {
  int64_t steps = 1000;
  std::string dtype = "f32";
  int64_t batch = 16;
  int64_t micro_batch = 4;
  int64_t sequence_length = 512;
  std::string recompute = "none";
  bool exact = false;
  double z_loss = 0;
  int64_t log_every = 10;
  bool measure_peak = true;
  int64_t statistics_every = 0;
  int64_t evaluate_every = 0;
  int64_t evaluate_sequences = 64;
  int64_t sample_every = 0;
  std::string sample_prompt;
  int64_t sample_tokens = 64;
  double sample_temperature = 0.8;
  std::string init_from;

  template <class V>
  void visit(V&& v) {
    v("steps", steps, Field{.help = "optimiser steps of the whole run", .min = 1, .max = 1e12});
    v("dtype", dtype,
      Field{.help = "compute type; masters and gradient sums are f32 in both",
            .choices = "f32|bf16"});
    v("batch", batch,
      Field{.help = "sequences a step, over all ranks: a multiple of micro_batch",
            .unit = "sequences",
            .min = 1,
            .max = 1e9});
    v("micro_batch", micro_batch,
      Field{.help = "sequences that pass through the model at once",
            .unit = "sequences",
            .min = 1,
            .max = 1e9});
    v("sequence_length", sequence_length,
      Field{.help = "tokens of one sequence", .unit = "tokens", .min = 2, .max = 1e7});
    v("recompute", recompute,
      Field{.help = "what the backward pass computes again instead of keeping it",
            .choices = "none|swiglu|norms|attention|block"});
    v("exact", exact,
      Field{.help = "sums in one fixed order: any number of ranks gives the same bits"});
    v("z_loss", z_loss,
      Field{
          .help = "coefficient of the squared logarithm of the softmax's denominator (PaLM: 1e-4)",
          .min = 0,
          .max = 1e6});
    v("log_every", log_every,
      Field{.help = "a console line every so many steps; 0 = none",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("measure_peak", measure_peak,
      Field{.help = "measure the machine's product rate at start, about a second; MFU needs it"});
    v("statistics_every", statistics_every,
      Field{.help =
                "every so many steps the metrics hold gradient norms by class of parameter, the "
                "size of each block's output and, of sparse layers, the load of each expert, "
                "for a pass over the first two; 0 = never",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    visit_evaluation(v);
    v("init_from", init_from,
      Field{.help = "a run's folder, a checkpoint or a Hugging Face folder whose weights the run "
                    "begins with"});
  }
  template <class V>
  void visit_evaluation(V&& v) {
    v("evaluate_every", evaluate_every,
      Field{.help = "validation loss every so many steps, and at the end; 0 = at the end only",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("evaluate_sequences", evaluate_sequences,
      Field{.help = "held-out sequences an evaluation reads of each source; 0 = no evaluation",
            .unit = "sequences",
            .min = 0,
            .max = 1e12});
    v("sample_every", sample_every,
      Field{.help = "generate a sample every so many steps; 0 = never",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("sample_prompt", sample_prompt, Field{.help = "what the samples begin with"});
    v("sample_tokens", sample_tokens,
      Field{.help = "length of a sample", .unit = "tokens", .min = 1, .max = 1e6});
    v("sample_temperature", sample_temperature,
      Field{.help = "0 = always the likeliest token", .min = 0, .max = 100});
  }
  void validate(Complaints& c) const;
};

// What changes when a token count is reached; the first stage begins at 0.
struct StageSection {
  int64_t from_tokens = 0;
  std::optional<int64_t> sequence_length;
  std::optional<int64_t> micro_batch;
  std::optional<int64_t> batch;
  std::optional<double> lr_multiplier;
  std::optional<std::string> rope_scaling;
  std::optional<double> rope_theta, rope_factor;
  std::optional<double> mtp_weight, bias_speed;
  std::vector<double> weights;

  template <class V>
  void visit(V&& v) {
    v("from_tokens", from_tokens,
      Field{.help = "the stage begins with the first step at or after this many tokens",
            .unit = "tokens",
            .min = 0,
            .max = 1e18});
    v("sequence_length", sequence_length,
      Field{.help = "replaces train.sequence_length from here on",
            .unit = "tokens",
            .min = 2,
            .max = 1e7});
    v("micro_batch", micro_batch,
      Field{.help = "replaces train.micro_batch", .unit = "sequences", .min = 1, .max = 1e9});
    v("batch", batch,
      Field{.help = "replaces train.batch", .unit = "sequences", .min = 1, .max = 1e9});
    v("lr_multiplier", lr_multiplier,
      Field{.help = "times the learning rate of the schedule", .min = 0, .max = 1e6});
    v("rope_scaling", rope_scaling,
      Field{.help = "replaces model.rope.scaling", .choices = "none|linear|llama3|yarn"});
    v("rope_theta", rope_theta, Field{.help = "replaces model.rope.theta", .min = 1, .max = 1e15});
    v("rope_factor", rope_factor,
      Field{.help = "replaces model.rope.factor", .min = 1, .max = 1e6});
    v("mtp_weight", mtp_weight, Field{.help = "replaces model.mtp.weight", .min = 0, .max = 1e6});
    v("bias_speed", bias_speed,
      Field{.help = "replaces model.moe.balance.bias_speed", .min = 0, .max = 1});
    v("weights", weights,
      Field{.help = "mixture weights of the data sources, in their order; empty: unchanged",
            .min = 0,
            .max = 1e12});
  }
};

struct RunConfig {
  std::string device = "cpu";
  int64_t threads = 0;
  std::string tokenizer;
  RunSection run;
  TrainSection train;
  CheckpointSection checkpoint;
  CostSection cost;
  ModelConfig model;
  PrecisionConfig precision;
  OptimConfig optim;
  LoaderConfig data;
  ParallelSection parallel;
  MeshConfig mesh;
  PipelineSection pipeline;
  OffloadSection offload;
  std::vector<StageSection> stages;
  KeyPositions set_at;  // no setting: where each key was set, for errors

  template <class V>
  void visit(V&& v) {
    v("device", device, Field{.help = "where tensors live", .choices = "cpu|cuda"});
    v("threads", threads,
      Field{.help = "processor cores to use, shared out among ranks; 0 = all",
            .min = 0,
            .max = 4096});
    v("tokenizer", tokenizer,
      Field{.help =
                "tokenizer.json, its folder or a .tiktoken file: for samples and bits per byte; "
                "must be the one the stores were packed with"});
    v("run", run, Field{.help = "The run's place and its seed."});
    v("train", train, Field{.help = "The training loop."});
    v("checkpoint", checkpoint, Field{.help = "What is saved and what stays."});
    v("cost", cost, Field{.help = "What the machine costs."});
    v("model", model, Field{.help = "The model's shape and scales."});
    v("precision", precision, Field{.help = "What is multiplied in FP8, and how."});
    v("optim", optim, Field{.help = "Update rule, schedule, clipping."});
    v("data", data, Field{.help = "What is read."});
    v("parallel", parallel, Field{.help = "How ranks share the work."});
    v("mesh", mesh, Field{.help = "How many ranks each kind of parallelism has."});
    v("pipeline", pipeline, Field{.help = "How the layers are laid out where mesh.pp > 1."});
    v("offload", offload, Field{.help = "What waits in host memory."});
    v("stages", stages, Field{.help = "Changes at token counts"});
  }
  // Rules between sections: batches, stages.
  void validate(Complaints& c) const;
  // What only a run asks for: data to train on, in sequences that fit the model.
  void validate_data(Complaints& c) const;
};

// Fills every key that the FP8 recipe decides: those of precision, and optim.moments. Where the
// latter is given it wins, and precision.moments says the same.
void fill_in(RunConfig& config);
// What to warn of before that: an optim.moments that is not the recipe's. Empty: nothing.
std::string warning_of_moments(const RunConfig& config);

}  // namespace shoestring
