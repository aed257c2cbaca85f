#include "launcher/mesh_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "launcher/key_places.h"
#include "launcher/plan.h"
#include "parallel/mesh_layouts.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

[[noreturn]] void refuse(const RunConfig& config, std::string text,
                         const std::vector<std::string>& with = {}) {
  fail_usage(with_places(std::move(text), config.set_at, with));
}

// Sizes that no run has, alone or together with data ranks of [parallel], go no further: what is
// left can be multiplied.
void require_sizes(const RunConfig& config) {
  MeshConfig mesh = config.mesh;
  Complaints complaints;
  mesh.validate(complaints);
  for (const auto& [key, message] : complaints.items()) {
    refuse(config, cat("mesh.", key, " ", message));
  }
  if (mesh.dp_shard > 0) return;
  mesh.dp_shard = config.parallel.data_parallel;
  mesh.dp_replicate = 1;
  mesh.validate(complaints);
  for (const auto& [key, message] : complaints.items()) {
    refuse(config,
           cat(key == "dp_shard" ? "parallel.data_parallel" : cat("mesh.", key), " ", message),
           {"mesh.tp", "mesh.cp", "mesh.pp", "parallel.data_parallel"});
  }
}

// Of all axes but those of data parallelism.
int64_t ranks_of_one_copy(const MeshConfig& mesh) { return mesh.tp * mesh.cp * mesh.pp; }

// Data ranks that the config names; 0: it leaves mesh.dp_shard open.
int64_t named_data_ranks(const RunConfig& config) {
  const MeshConfig& mesh = config.mesh;
  const int64_t wanted = config.parallel.data_parallel;
  if (mesh.dp_shard == 0) return wanted > 1 ? wanted : 0;
  const int64_t named = mesh.dp_shard * mesh.dp_replicate;
  if (wanted != 1 && wanted != named) {
    refuse(config,
           cat("parallel.data_parallel = ", wanted, " but mesh.dp_shard x dp_replicate = ", named,
               "; leave one of them out"),
           {"mesh.dp_replicate"});
  }
  return named;
}

ScheduleNeeds schedule_needs(const RunConfig& config, int64_t pp) {
  ScheduleRequest request{.name = config.pipeline.schedule,
                          .ranks = static_cast<int>(std::min<int64_t>(pp, 1 << 16))};
  if (config.pipeline.chunks > 0) request.chunks = static_cast<int>(config.pipeline.chunks);
  return needs_of(request);
}

ModelFacts facts_of(const RunConfig& config, const LoadSegment& segment, int64_t pp) {
  const ModelConfig& m = config.model;
  const bool dense = !m.moe.on() || m.moe.first_dense > 0 || m.moe.every > 1;
  // Pieces at the ends may be without a block where the config or a measurement says so.
  const std::vector<int64_t>& pieces = config.pipeline.layers;
  const int64_t empty = split_is_open(config) ? 2 : std::count(pieces.begin(), pieces.end(), 0);
  return {
      .layers = m.layers + empty,
      .heads = m.heads,
      .kv_heads = m.mla.on() ? 0 : m.kv_heads,
      .ffn = dense ? m.ffn : 0,
      .shared_ffn = m.moe.on() ? m.moe.shared * m.moe.ffn : 0,
      .experts = m.moe.on() ? m.moe.experts : 0,
      .expert_ffn = m.moe.on() ? m.moe.ffn : 0,
      .groups = m.moe.on() ? std::max<int64_t>(m.moe.groups, 1) : 1,
      .vocabulary = m.vocabulary,
      .sequence = segment.length,
      .micro_batches = segment.micro_batches,
      .context = config.parallel.context == "ring" ? ContextKind::ring : ContextKind::all_to_all,
      .equal_batches = config.parallel.zero_stage == 3,
      .whole_matrices = config.optim.optimizer == "muon",
      .schedule = schedule_needs(config, pp)};
}

// Whether rows cross between nodes on two levels is known when the ranks are.
void require_expert_rows(const RunConfig& config, const Mesh& mesh) {
  const bool two_levels = mesh.node_shape(MeshGroup::ep).two_levels();
  if (!two_levels && config.parallel.sum_in_nodes) {
    refuse(config,
           "parallel.sum_in_nodes = true, but no rows cross between nodes on two levels: each "
           "experts' group needs several consecutive ranks on each of several nodes; set it to "
           "false, or change mesh.ep, mesh.order or mesh.ranks_per_node");
  }
}

}  // namespace

int64_t ranks_of(const RunConfig& config) {
  require_sizes(config);
  return ranks_of_one_copy(config.mesh) *
         std::max(named_data_ranks(config), config.mesh.dp_replicate);
}

MeshConfig mesh_of(const RunConfig& config, int64_t ranks) {
  require_sizes(config);
  MeshConfig mesh = config.mesh;
  const int64_t named = named_data_ranks(config), copy = ranks_of_one_copy(mesh);
  if (named > 0 && copy * named != ranks) {
    const bool by_mesh = mesh.dp_shard > 0;
    refuse(config,
           cat("the config asks for ", counted(copy * named, "rank"), " (mesh.tp ", mesh.tp,
               " x cp ", mesh.cp, " x pp ", mesh.pp, " x ", counted(named, "data rank"),
               "), but there ", ranks == 1 ? "is " : "are ", ranks, "; start ", copy * named,
               ", or ", by_mesh ? "set mesh.dp_shard = 0" : "leave parallel.data_parallel out",
               ": the data ranks are then what the other axes leave"),
           {"mesh.cp", "mesh.pp", "mesh.dp_replicate"});
  }
  return mesh.resolved(ranks);
}

PartConfig part_config_of(const RunConfig& config, int64_t ranks) {
  PartConfig part;
  part.mesh = mesh_of(config, ranks);
  part.schedule = config.pipeline.schedule;
  part.chunks = static_cast<int>(config.pipeline.chunks);
  part.blocks = config.pipeline.layers;
  part.context = config.parallel.context == "ring" ? ContextKind::ring : ContextKind::all_to_all;
  part.overlap = config.pipeline.overlap && part.mesh.pp > 1;
  part.tensor_chunks = static_cast<int>(config.parallel.tensor_chunks);
  part.fixed_rows = config.parallel.expert_rows == "fixed";
  part.sum_in_nodes = config.parallel.sum_in_nodes && part.mesh.ep > 1;
  return part;
}

bool split_is_open(const RunConfig& config) {
  return config.mesh.pp > 1 && config.pipeline.split == "measured" &&
         config.pipeline.layers.empty();
}

bool has_use_for_zero(const RunConfig& config, int64_t data_ranks) {
  const MeshConfig& mesh = config.mesh;
  const bool copied = mesh.pp > 1 && config.pipeline.schedule == "dualpipe";
  const int64_t dense = data_ranks * mesh.cp;  // that hold the same
  const bool routed = config.model.moe.on() && dense * mesh.tp > mesh.ep * mesh.etp;
  return config.offload.optimizer || copied || dense > 1 || routed;
}

void check_pipeline(const RunConfig& config, Complaints& complaints) {
  const PipelineSection& pipeline = config.pipeline;
  try {
    const ScheduleEntry& entry = schedule_entry(pipeline.schedule);
    if (pipeline.chunks > 0 && !entry.takes_chunks) {
      complaints.add("pipeline.chunks",
                     cat("is ", pipeline.chunks, ", but schedule = \"", entry.name,
                         "\" takes none; leave it out, or choose \"interleaved-1f1b\""));
    }
    if (pipeline.chunks == 1 && entry.takes_chunks) {
      complaints.add("pipeline.chunks", cat("is 1, but schedule = \"", entry.name, "\" needs at ",
                                            "least 2 pieces on a rank; with one it is \"1f1b\""));
    }
  } catch (const Error& error) {
    complaints.add("pipeline.schedule", error.what());
    return;
  }
  if (pipeline.layers.empty()) return;
  const int64_t pp = config.mesh.pp;
  const int64_t stages = pp > 1 ? pp * schedule_needs(config, pp).stages_per_rank : 1;
  const auto pieces = static_cast<int64_t>(pipeline.layers.size());
  if (pieces != stages) {
    complaints.add("pipeline.layers",
                   cat("names ", counted(pieces, "piece"), ", but mesh.pp = ", pp,
                       pp > 1 ? cat(" with pipeline.schedule = \"", pipeline.schedule, "\"") : "",
                       " cuts the model into ", stages, "; ",
                       pp > 1 ? "write as many numbers"
                              : cat("add --set mesh.pp=", pieces, " for a pipeline of so many ",
                                    "ranks, or leave pipeline.layers out")));
  }
  const int64_t blocks = std::accumulate(pipeline.layers.begin(), pipeline.layers.end(), 0LL);
  if (blocks != config.model.layers) {
    complaints.add("pipeline.layers", cat("holds ", counted(blocks, "block"), " together, but ",
                                          "model.layers = ", config.model.layers));
  }
}

void require_layout(const RunConfig& config, int64_t ranks,
                    const std::vector<LoadSegment>& segments) {
  LayoutQuestion question;
  question.config = mesh_of(config, ranks);
  question.ranks = ranks;
  if (config.mesh.dp_shard == 0 && config.parallel.data_parallel > 1) {
    question.data_key = "parallel.data_parallel";
  }
  for (const LoadSegment& segment : segments) {
    question.model = facts_of(config, segment, question.config.pp);
    if (segments.size() == 1) question.model.batch = segment.micro_batches * segment.sequences;
    require_layout(question, [&](std::string text, const std::vector<std::string>& with) {
      return with_places(std::move(text), config.set_at,
                         keys_from(config, segment.from_tokens, with));
    });
  }
  require_expert_rows(config, Mesh(question.config, static_cast<int>(ranks)));
  Complaints complaints;
  check_pipeline(config, complaints);
  for (const auto& [key, message] : complaints.items()) refuse(config, cat(key, " ", message));
}

std::vector<MeshConfig> legal_meshes(const RunConfig& config, int64_t ranks) {
  LayoutQuestion question;
  question.ranks = ranks;
  question.config.order = config.mesh.order;
  question.config.ranks_per_node = config.mesh.ranks_per_node;
  question.model = facts_of(config, load_segments(config)[0], config.mesh.pp);
  return legal_layouts(question);
}

}  // namespace shoestring
