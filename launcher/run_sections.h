#pragma once
// The small sections of a run's config (launcher/run_config.h puts them together).

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"

namespace shoestring {

struct RunSection {
  std::string directory = "runs/default";
  std::string name;
  int64_t seed = 1;
  double signal_deadline = 300;

  template <class V>
  void visit(V&& v) {
    v("directory", directory,
      Field{.help = "where the run keeps its config, metrics and checkpoints; a run that is found "
                    "there is resumed"});
    v("name", name, Field{.help = "printed at the start and kept in summary.json, for people"});
    v("seed", seed,
      Field{.help = "of initial weights, data order and every other random number", .min = 0});
    v("signal_deadline", signal_deadline,
      Field{.help =
                "after SIGINT or SIGTERM the run saves and exits with code 75 within this time: "
                "what is not saved by then is lost; give what the scheduler grants; 0 = no "
                "limit",
            .unit = "seconds",
            .min = 0,
            .max = 1e9});
  }
  void validate(Complaints& c) const;
};

struct CheckpointSection {
  int64_t every = 1000;
  int64_t keep = 2;
  int64_t keep_every = 0;
  bool background = true;
  double memory_limit_gb = 0;
  double deadline = 600;

  template <class V>
  void visit(V&& v) {
    v("every", every,
      Field{.help = "save every so many steps, and at the end; 0 = at the end only",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("keep", keep,
      Field{.help = "how many of the last checkpoints stay; the one before the last also with 1, "
                    "until a finite loss shows that the last is good",
            .min = 1,
            .max = 1e6});
    v("keep_every", keep_every,
      Field{.help = "checkpoints at multiples of this stay for good; 0 = none",
            .unit = "steps",
            .min = 0,
            .max = 1e12});
    v("background", background,
      Field{.help = "copy the state and write it while training goes on"});
    v("memory_limit_gb", memory_limit_gb,
      Field{
          .help = "the copy may take this much; above it, saving waits for the disk; 0 = no limit",
          .unit = "GB",
          .min = 0,
          .max = 1e9});
    v("deadline", deadline,
      Field{.help = "a rank waits so long for the others' files of a checkpoint; then this save "
                    "has failed and training goes on",
            .unit = "seconds",
            .min = 1,
            .max = 1e6});
  }
  void validate(Complaints& c) const;
};

struct CostSection {
  double price_per_hour = 0;
  std::string currency = "USD";
  int64_t chips = 1;

  template <class V>
  void visit(V&& v) {
    v("price_per_hour", price_per_hour,
      Field{.help = "of one chip, in `currency`; 0 = the run reports no money",
            .min = 0,
            .max = 1e9});
    v("currency", currency, Field{.help = "the name that the reports print"});
    v("chips", chips, Field{.help = "how many are paid for", .min = 1, .max = 1e7});
  }
};

// Which ranks of a pipeline hold which layers, and in which order they work.
struct PipelineSection {
  std::string schedule = "1f1b";
  int64_t chunks = 0;
  std::vector<int64_t> layers;
  std::string split = "even";
  bool overlap = false;

  void validate(Complaints& c) const;
  template <class V>
  void visit(V&& v) {
    v("schedule", schedule,
      Field{.help = "order of forward and backward passes where mesh.pp > 1; `shoestring schedule "
                    "list` names them all"});
    v("chunks", chunks,
      Field{.help = "pieces of the model that a rank holds in interleaved-1f1b; 0 = 2",
            .min = 0,
            .max = 64});
    v("layers", layers,
      Field{.help = "blocks of each piece of the model, in order, which may be 0 for the first and "
                    "the last; empty: as `split` says",
            .min = 0,
            .max = 1e5});
    v("split", split,
      Field{.help =
                "without `layers`: as many blocks for each piece, or by what pieces take on the "
                "machine of the first rank when the run starts (`shoestring bench stages` "
                "prints it)",
            .choices = "even|measured"});
    v("overlap", overlap,
      Field{.help = "run forward and backward passes in pairs, part by part, so that the rows of "
                    "one that travel to experts are hidden behind the work of the other; needs "
                    "mesh.pp > 1, mesh.ep x etp > 1 and 1f1b, interleaved-1f1b, dualpipe or "
                    "dualpipev; changes no bit, and 1f1b keeps more activations"});
  }
};

// What waits in host memory instead of the device's.
struct OffloadSection {
  bool optimizer = false, activations = false;

  template <class V>
  void visit(V&& v) {
    v("optimizer", optimizer,
      Field{.help =
                "master weights, moments, the weight average and sums of gradients lie in host "
                "memory, where the optimiser runs; needs parallel.zero_stage 1, 2 or 3; changes "
                "no bit"});
    v("activations", activations,
      Field{.help = "what stages of a pipeline but the last save for their backward pass waits in "
                    "host memory and comes back in time; changes no bit"});
  }
};

// How ranks share the work.
struct ParallelSection {
  int64_t data_parallel = 1;
  int64_t zero_stage = 0;
  double bucket_mb = 25;
  int64_t tensor_chunks = 2;
  std::string context = "ring";
  std::string expert_rows = "exact";
  bool sum_in_nodes = false;
  bool checked = false;
  double deadline = 900;

  template <class V>
  void visit(V&& v) {
    v("data_parallel", data_parallel,
      Field{.help = "data-parallel ranks, which share each batch; with those of [mesh] they are "
                    "threads of this process, or the processes that mpirun or srun started (1: as "
                    "many as those make)",
            .min = 1,
            .max = 4096});
    v("zero_stage", zero_stage,
      Field{.help = "what data ranks share out: 1 masters and the optimiser's state, 2 gradients "
                    "too, 3 weights too",
            .min = 0,
            .max = 3});
    v("bucket_mb", bucket_mb,
      Field{.help = "gradients are reduced in pieces of this size while the backward pass goes on",
            .unit = "MB",
            .min = 0.001,
            .max = 1e6});
    v("tensor_chunks", tensor_chunks,
      Field{.help = "where mesh.tp > 1: in how many runs the rows beside a layer's product travel, "
                    "while others are multiplied; 0 = at once, before or after the product; "
                    "changes no bit in exact mode",
            .min = 0,
            .max = 64});
    v("context", context,
      Field{.help = "where mesh.cp > 1: keys and values travel round a ring, or heads are "
                    "exchanged for tokens",
            .choices = "ring|all_to_all"});
    v("expert_rows", expert_rows,
      Field{.help = "where mesh.ep x etp > 1: ranks tell one another how many rows each expert "
                    "gets, and wait for it in every sparse layer, or send each expert as many as "
                    "model.moe.capacity lets through, padded with zeros, and wait for nothing",
            .choices = "exact|fixed"});
    v("sum_in_nodes", sum_in_nodes,
      Field{.help = "where the ranks of mesh.ep stand on several nodes (mesh.ranks_per_node): "
                    "outputs of a token's experts are summed in their node and cross as one row; "
                    "fewer bytes, another order of summation"});
    v("checked", checked,
      Field{.help =
                "compare every collective among ranks before it moves data; names the rank that "
                "diverged"});
    v("deadline", deadline,
      Field{.help = "a rank waits so long for another in one call, then the run ends with an error "
                    "that names it; longer than checkpoint.deadline, because a rank that waits for "
                    "a slow disk is not dead",
            .unit = "seconds",
            .min = 1,
            .max = 1e6});
  }
};

}  // namespace shoestring
