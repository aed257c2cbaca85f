#include "launcher/mesh_layout.h"

#include <algorithm>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "launcher/plan.h"
#include "parallel/mesh_layouts.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

// Of all axes but those of data parallelism.
int64_t ranks_of_one_copy(const MeshConfig& mesh) { return mesh.tp * mesh.cp * mesh.pp; }

// Data ranks that the config names; 0: it leaves them open.
int64_t named_data_ranks(const RunConfig& config) {
  const MeshConfig& mesh = config.mesh;
  const int64_t wanted = config.parallel.data_parallel;
  if (mesh.dp_shard == 0)
    return wanted > 1 ? wanted : mesh.dp_replicate > 1 ? mesh.dp_replicate : 0;
  const int64_t named = mesh.dp_shard * mesh.dp_replicate;
  if (wanted != 1 && wanted != named) {
    fail_usage(cat("parallel.data_parallel = ", wanted,
                   " but mesh.dp_shard x dp_replicate = ", named, "; leave one of them out"));
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
  return {
      .layers = m.layers,
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
  if (two_levels && config.parallel.expert_rows == "fixed") {
    fail_usage(
        "parallel.expert_rows = \"fixed\", but the experts' ranks stand on several nodes "
        "(mesh.ranks_per_node), between which rows travel on two levels with exact counts; set it "
        "to \"exact\", or mesh.ranks_per_node = 0");
  }
  if (!two_levels && config.parallel.sum_in_nodes) {
    fail_usage(
        "parallel.sum_in_nodes = true, but no rows cross between nodes on two levels: each "
        "experts' group needs several consecutive ranks on each of several nodes; set it to "
        "false, or change mesh.ep, mesh.order or mesh.ranks_per_node");
  }
}

}  // namespace

int64_t ranks_of(const RunConfig& config) {
  return ranks_of_one_copy(config.mesh) * std::max<int64_t>(named_data_ranks(config), 1);
}

MeshConfig mesh_of(const RunConfig& config, int64_t ranks) {
  MeshConfig mesh = config.mesh;
  const int64_t named = named_data_ranks(config), copy = ranks_of_one_copy(mesh);
  if (named > 0 && copy * named != ranks) {
    fail_usage(cat("the config asks for ", counted(copy * named, "rank"), " (mesh.tp ", mesh.tp,
                   " x cp ", mesh.cp, " x pp ", mesh.pp, " x ", counted(named, "data rank"),
                   "), but there ", ranks == 1 ? "is " : "are ",
                   counted(ranks, "process", "processes"),
                   "; start as many as that, or leave parallel.data_parallel at 1 for the ranks ",
                   "that the other axes leave"));
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
  part.fixed_rows = config.parallel.expert_rows == "fixed";
  part.sum_in_nodes = config.parallel.sum_in_nodes && part.mesh.ep > 1;
  return part;
}

void require_layout(const RunConfig& config, int64_t ranks,
                    const std::vector<LoadSegment>& segments) {
  LayoutQuestion question;
  question.config = mesh_of(config, ranks);
  question.ranks = ranks;
  for (const LoadSegment& segment : segments) {
    question.model = facts_of(config, segment, question.config.pp);
    require_layout(question);
  }
  require_expert_rows(config, Mesh(question.config, static_cast<int>(ranks)));
  if (config.mesh.pp == 1 && config.pipeline.layers.empty()) return;
  // The pieces of the model are as many as the schedule has stages, and hold all blocks.
  const PartConfig part = part_config_of(config, ranks);
  if (!part.blocks.empty()) cut(config.model, part.blocks);
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
