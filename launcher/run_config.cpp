#include "launcher/run_config.h"

#include <algorithm>

#include "core/counted.h"
#include "core/text.h"
#include "launcher/kept_matrices.h"
#include "launcher/mesh_layout.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

void check_multiple(Complaints& c, std::string_view key, int64_t batch, int64_t micro_batch) {
  if (batch % micro_batch == 0) return;
  c.add(key, cat("the batch of ", counted(batch, "sequence"),
                 " is not a multiple of micro_batch = ", micro_batch, "; the next one is ",
                 (batch / micro_batch + 1) * micro_batch));
}

// Of the run's stages, the micro-batch from a token count on.
int64_t micro_batch_at(const RunConfig& config, int64_t tokens) {
  int64_t micro_batch = config.train.micro_batch;
  for (const StageSection& stage : config.stages) {
    if (stage.from_tokens <= tokens) micro_batch = stage.micro_batch.value_or(micro_batch);
  }
  return micro_batch;
}

void check_ramp(const RunConfig& config, Complaints& c) {
  const RampConfig& ramp = config.optim.ramp;
  int64_t begin = 0;
  for (size_t i = 0; i < std::min(ramp.tokens.size(), ramp.sequences.size()); ++i) {
    std::vector<int64_t> borders = {begin};
    for (const StageSection& stage : config.stages) {
      if (stage.from_tokens > begin && stage.from_tokens < ramp.tokens[i]) {
        borders.push_back(stage.from_tokens);
      }
    }
    for (int64_t from : borders) {
      const size_t before = c.items().size();
      check_multiple(c, cat("optim.ramp.sequences.", i), ramp.sequences[i],
                     micro_batch_at(config, from));
      if (c.items().size() > before) break;
    }
    begin = ramp.tokens[i];
  }
}

// What cannot overlap, or would pay for it and hide nothing.
void check_overlap(const RunConfig& config, Complaints& c) {
  if (!config.pipeline.overlap) return;
  const auto add = [&](const std::string& why, std::string_view other) {
    c.add("pipeline.overlap", cat("is true, but ", why, "; set it to false, or ", other));
  };
  const MeshConfig& mesh = config.mesh;
  if (mesh.pp == 1) add("there is no pipeline: mesh.pp = 1", "mesh.pp to 2 or more");
  if (mesh.ep * mesh.etp == 1) {
    add("no rows travel that it could hide: mesh.ep and mesh.etp are 1", "mesh.ep to 2 or more");
  }
  if (can_overlap(config.pipeline.schedule)) return;
  add(cat("pipeline.schedule = \"", config.pipeline.schedule, "\" has no pairs of passes"),
      "pipeline.schedule to 1f1b, interleaved-1f1b, dualpipe or dualpipev, which have");
}

// How experts' rows travel, where they do.
void check_expert_rows(const RunConfig& config, Complaints& c) {
  const MeshConfig& mesh = config.mesh;
  if (config.parallel.expert_rows == "fixed") {
    const auto add = [&](std::string_view why) {
      c.add("parallel.expert_rows", cat("is \"fixed\", but ", why));
    };
    if (mesh.ep * mesh.etp == 1) {
      add("mesh.ep and mesh.etp are 1: no rows travel; leave it at \"exact\"");
    }
    if (!(config.model.moe.capacity > 0)) {
      add("model.moe.capacity = 0 lets any number of rows through to an expert; set "
          "model.moe.capacity, for example to 1.25, or leave this at \"exact\"");
    }
  }
  if (!config.parallel.sum_in_nodes) return;
  const auto add = [&](std::string_view why) {
    c.add("parallel.sum_in_nodes", cat("is true, but ", why));
  };
  if (mesh.ep == 1 || mesh.ranks_per_node == 0) {
    add(cat(mesh.ep == 1 ? "mesh.ep = 1" : "mesh.ranks_per_node = 0",
            ": no rows cross between nodes; set it to false, or ",
            mesh.ep == 1 ? "mesh.ep to 2 or more" : "mesh.ranks_per_node to the ranks of a node"));
  }
  if (config.train.exact) {
    add("train.exact = true wants one order of all sums, and this is another; set one of them to "
        "false");
  }
}

void check_offload(const RunConfig& config, Complaints& c) {
  if (config.offload.optimizer && config.parallel.zero_stage == 0) {
    c.add("offload.optimizer",
          "is true, but parallel.zero_stage = 0: it moves what a rank owns of masters and moments; "
          "set zero_stage to 1, 2 or 3");
  }
  if (!config.offload.activations) return;
  if (config.mesh.pp == 1) {
    c.add("offload.activations",
          "is true, but mesh.pp = 1: the last stage of a pipeline, which needs its activations at "
          "once, is the only one; set it to false, or mesh.pp to 2 or more");
  }
}

std::string text_of_length(const RunConfig& config, int64_t length) {
  return cat("is ", length, ", longer than model.max_positions = ", config.model.max_positions,
             "; raise the latter or shorten the sequences");
}

}  // namespace

void RunSection::validate(Complaints& c) const {
  if (directory.empty()) c.add("directory", "is empty; name a folder, for example runs/first");
}

void TrainSection::validate(Complaints& c) const {
  check_multiple(c, "batch", batch, micro_batch);
  if (sample_every > 0 && sample_prompt.empty()) {
    c.add("sample_prompt", "is empty, but sample_every asks for samples");
  }
}

void PipelineSection::validate(Complaints& c) const {
  for (size_t i = 1; i + 1 < layers.size(); ++i) {
    if (layers[i] > 0) continue;
    c.add("layers", cat("gives piece ", i,
                        " no block; only the first, which has the embedding, "
                        "and the last, which has the head, may be without one"));
  }
  if (split == "measured" && !layers.empty()) {
    c.add("split", "is \"measured\", but `layers` says which blocks each piece has; leave one out");
  }
}

void CheckpointSection::validate(Complaints& c) const {
  if (keep_every > 0 && every > 0 && keep_every % every != 0) {
    c.add("keep_every", cat("must be a multiple of every = ", every, " but is ", keep_every));
  }
}

void RunConfig::validate_data(Complaints& c) const {
  if (data.sources.empty()) {
    c.add("data.sources",
          "is empty; pack a corpus with `shoestring data pack` and name it there (files in "
          "configs/models are models alone, which those in configs/runs include)");
  }
  const int64_t positions = model.max_positions, length = train.sequence_length;
  if (length > positions) c.add("train.sequence_length", text_of_length(*this, length));
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageSection& stage = stages[i];
    const int64_t own = stage.sequence_length.value_or(0);
    if (own > positions) c.add(cat("stages.", i, ".sequence_length"), text_of_length(*this, own));
    if (stage.weights.empty() || stage.weights.size() == data.sources.size()) continue;
    c.add(cat("stages.", i, ".weights"),
          cat("has ", counted(static_cast<int64_t>(stage.weights.size()), "weight"), ", but there ",
              data.sources.size() == 1 ? "is " : "are ",
              counted(static_cast<int64_t>(data.sources.size()), "source"), " in data.sources"));
  }
}

void RunConfig::validate(Complaints& c) const {
  check_ramp(*this, c);
  check_pipeline(*this, c);
  check_overlap(*this, c);
  check_expert_rows(*this, c);
  check_offload(*this, c);
  check_kept_matrices(precision, model, c);
  if (device == "cuda") {
    c.add("device", "is \"cuda\", but there are no CUDA kernels yet; use \"cpu\"");
  }
  if (train.sample_every > 0 && tokenizer.empty()) {
    c.add("train.sample_every",
          cat("is ", train.sample_every, ", but there is no tokenizer to make samples with; set ",
              "tokenizer to the one that the stores were packed with, or sample_every = 0"));
  }
  if (parallel.deadline <= checkpoint.deadline) {
    c.add("parallel.deadline",
          cat("must be longer than checkpoint.deadline = ", checkpoint.deadline,
              " s, or ranks would give up one that waits for a slow disk, but is ",
              parallel.deadline, " s"));
  }
  int64_t batch = train.batch, micro_batch = train.micro_batch;
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageSection& stage = stages[i];
    std::string key = cat("stages.", i);
    if (i > 0 && stage.from_tokens <= stages[i - 1].from_tokens) {
      c.add(cat(key, ".from_tokens"),
            cat("must be above the previous stage's ", stages[i - 1].from_tokens, " but is ",
                stage.from_tokens));
    }
    if (stage.mtp_weight && model.mtp.depth == 0) {
      c.add(cat(key, ".mtp_weight"),
            "needs prediction modules: set model.mtp.depth, or leave it out");
    }
    if (stage.bias_speed && model.moe.experts == 0) {
      c.add(cat(key, ".bias_speed"), "needs experts: set model.moe, or leave it out");
    }
    batch = stage.batch.value_or(batch);
    micro_batch = stage.micro_batch.value_or(micro_batch);
    if (stage.batch || stage.micro_batch) {
      check_multiple(c, cat(key, stage.batch ? ".batch" : ".micro_batch"), batch, micro_batch);
    }
  }
}

void fill_in(RunConfig& config) {
  fill_in(config.precision);
  const bool recipe = config.precision.on();
  if (!config.optim.moments) config.optim.moments = recipe ? *config.precision.moments : "f32";
  if (recipe) config.precision.moments = config.optim.moments;
}

std::string warning_of_moments(const RunConfig& config) {
  PrecisionConfig precision = config.precision;
  fill_in(precision);
  if (!precision.on() || !config.optim.moments || *config.optim.moments == *precision.moments) {
    return "";
  }
  return cat("optim.moments = \"", *config.optim.moments, "\" wins over precision.moments = \"",
             *precision.moments, "\", which ",
             config.precision.moments ? "is given, too" : cat("recipe ", precision.recipe, " sets"),
             "; leave one of them out");
}

}  // namespace shoestring
