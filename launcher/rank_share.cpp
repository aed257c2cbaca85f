#include "launcher/rank_share.h"

#include <algorithm>

#include "launcher/mesh_layout.h"
#include "launcher/rank_state.h"
#include "parallel/expert_exchange.h"
#include "parallel/mesh.h"
#include "parallel/model_stages.h"
#include "parallel/tensor_parallel.h"

namespace shoestring {
namespace {

void add_parameters(const RunConfig& config, const Mesh& mesh, int rank, RankShare& share) {
  const MeshPlace& place = mesh.place(rank);
  std::vector<int> stages = stages_of(share.where, place[MeshAxis::pp]);
  std::sort(stages.begin(), stages.end());
  const std::vector<ParamInfo> whole = parameters_of(config.model, share.chunks, stages);
  for (ParamInfo& info :
       shard_parameters(config.model, whole, place[MeshAxis::tp], mesh.extent(MeshAxis::tp))) {
    const bool routed = is_of_experts(info);
    if (routed) info.shape.set(0, info.shape[0] / share.experts);
    if (routed) info.parts.resize(info.parts.size() / static_cast<size_t>(share.experts));
    (routed ? share.routed : share.dense).params.push_back(std::move(info));
  }
}

// With both copies of a stage where the schedule has two.
void add_replicas(const Mesh& mesh, MeshGroup kind, int rank, const Placement& where,
                  RankShare::Group& group) {
  group.ranks = mesh.size(kind);
  group.rank = mesh.index_in(kind, rank);
  const int pp = mesh.place(rank)[MeshAxis::pp], other = where.ranks - 1 - pp;
  if (where.order != StageOrder::both_ways || pp == other) return;
  if (pp > other) group.rank += group.ranks;
  group.ranks *= 2;
}

}  // namespace

RankShare share_of(const RunConfig& config, int ranks, int rank, int64_t micro_batches) {
  const PartConfig part = part_config_of(config, ranks);
  const Mesh mesh(part.mesh, ranks);
  const int pp = mesh.extent(MeshAxis::pp);
  const Schedule schedule = schedule_of(part, pp > 1 ? static_cast<int>(micro_batches) : 1);
  RankShare share{.tensor = mesh.extent(MeshAxis::tp),
                  .context = mesh.extent(MeshAxis::cp),
                  .experts = mesh.extent(MeshAxis::ep),
                  .context_kind = part.context,
                  .slots = pp > 1 ? 1 : micro_batches,
                  .where = schedule.where,
                  .program = schedule.ranks[static_cast<size_t>(mesh.place(rank)[MeshAxis::pp])]};
  share.chunks =
      cut(config.model,
          part.blocks.empty() ? even_split(config.model, schedule.where.stages()) : part.blocks);
  add_parameters(config, mesh, rank, share);
  add_replicas(mesh, MeshGroup::dp_cp, rank, share.where, share.dense);
  add_replicas(mesh, MeshGroup::edp, rank, share.where, share.routed);
  return share;
}

FlatGroup flat_group(const RunConfig& config, const RankShare::Group& group) {
  Device device(DeviceKind::cpu, 0, 1);
  const ParamStore store(device, group.params, dtype_from_name(config.train.dtype),
                         {.weights = false, .masters = false, .gradients = false});
  std::vector<ParamExtent> extents;
  for (const Param& p : store.params()) {
    extents.push_back({p.offset, p.offset + p.elements, updated_by_muon(p.info, config.optim)});
  }
  const int64_t bucket = std::max<int64_t>(sharing_of(config).bucket_bytes / 4, 1);
  return {.params = store.params(),
          .elements = store.elements(),
          .layout = ShardLayout(FlatRange{0, store.elements()}, extents, bucket, group.ranks)};
}

}  // namespace shoestring
