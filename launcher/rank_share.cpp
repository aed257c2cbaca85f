#include "launcher/rank_share.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "launcher/mesh_layout.h"
#include "launcher/rank_state.h"
#include "parallel/expert_exchange.h"
#include "parallel/gradient_traffic.h"
#include "parallel/model_part.h"
#include "parallel/param_units.h"
#include "parallel/sharding_pass.h"

namespace shoestring {
namespace {

// Where a program first adds to the gradients of a stage's micro-batch, or ends with them. The head
// adds in its forward pass.
struct SlotPlaces {
  std::map<int, size_t> begins, ends;  // by micro-batch
  SlotPlaces(const Program& program, int stage, bool head) {
    for (size_t at = 0; at < program.size(); ++at) {
      const Instruction& i = program[at];
      if (i.stage != stage || !is_compute(i.what)) continue;
      const bool begin = i.what == Do::F ? head : i.what != Do::W;
      if (begin) begins.try_emplace(i.micro, at);
      if (i.what == Do::B || i.what == Do::W) ends[i.micro] = at;
    }
  }
};

// A pass here follows the same micro-batch's of the other end, and all that this one does before.
int64_t slots_that_wait(const SlotPlaces& here, const SlotPlaces& there) {
  int64_t most = 0;
  for (const auto& [micro, begin] : here.begins) {
    int64_t open = 0;
    for (const auto& [other, began] : here.begins) {
      const bool over =
          here.ends.at(other) < begin && there.ends.at(other) < there.begins.at(micro);
      open += began <= begin && !over ? 1 : 0;
    }
    most = std::max(most, open);
  }
  return most + 1;  // whose sum is on its way
}

// Of the embedding that the first and the last rank of a pipeline have.
int64_t shared_slots(const Schedule& schedule, int rank) {
  const int last = schedule.where.stages() - 1;
  const auto places = [&](int stage, bool head) {
    const auto of = static_cast<size_t>(schedule.where.rank_of(stage, 0));
    return SlotPlaces(schedule.ranks[of], stage, head);
  };
  const bool is_last = schedule.where.rank_of(last, 0) == rank;
  return is_last ? slots_that_wait(places(last, true), places(0, true))
                 : slots_that_wait(places(0, false), places(last, false));
}

class Lister {
 public:
  Lister(const RunConfig& config, const Mesh& mesh, int rank, RankShare& share)
      : config_(config), mesh_(mesh), rank_(rank), share_(share) {}

  void run() {
    const ModelConfig& model = config_.model;
    std::vector<int> stages = stages_of(share_.where, pp());
    std::sort(stages.begin(), stages.end());
    const SharedBy sharing = embedding_sharing(model, share_.where, stages);
    share_.holds_shared = sharing == SharedBy::ends || sharing == SharedBy::mirrored;
    RankShare::Group shared;
    std::vector<RankShare::Group> dense, routed;
    const bool each_slot = reduces_each_slot(sharing_of(config_));
    for (size_t at = 0; at < stages.size(); ++at) {
      if (at == 0 || each_slot) {
        dense.push_back(group_of(stages[at], false));
        routed.push_back(group_of(stages[at], true));
      }
      for (ParamInfo& p : held_at(stages[at])) {
        const bool of_all = sharing != SharedBy::nobody && p.name == "embedding.weight";
        if (of_all) {
          shared = group_of(stages.front(), false);
          shared.stages = ends_among(stages);
        }
        auto& to = of_all ? shared : is_of_experts(p) ? routed.back() : dense.back();
        to.params.push_back(std::move(p));
      }
    }
    add(std::move(shared));
    for (auto* list : {&dense, &routed}) {
      for (RankShare::Group& group : *list) add(std::move(group));
    }
  }

 private:
  int pp() const { return mesh_.place(rank_)[MeshAxis::pp]; }
  void add(RankShare::Group group) {
    if (!group.params.empty()) share_.groups.push_back(std::move(group));
  }

  // Which read and write tokens: those that use one embedding for both.
  std::vector<int> ends_among(const std::vector<int>& stages) const {
    std::vector<int> ends;
    for (const int stage : stages) {
      const Chunk& chunk = share_.chunks[static_cast<size_t>(stage)];
      if (chunk.embedding || chunk.head) ends.push_back(stage);
    }
    return ends;
  }

  // What no stage before has.
  std::vector<ParamInfo> held_at(int stage) {
    const int t = mesh_.extent(MeshAxis::tp);
    const MeshPlace& place = mesh_.place(rank_);
    const ExpertPart part{.rank = place[MeshAxis::ep],
                          .ranks = mesh_.extent(MeshAxis::ep),
                          .slice = place[MeshAxis::etp],
                          .slices = mesh_.extent(MeshAxis::etp)};
    std::vector<ParamInfo> list;
    for (ParamInfo& p :
         shard_parameters(config_.model, parameters_of(config_.model, share_.chunks, {stage}),
                          mesh_.place(rank_)[MeshAxis::tp], t)) {
      if (!listed_.insert(p.name).second) continue;
      if (is_of_experts(p)) p = part_of_experts(std::move(p), config_.model.moe.experts, part);
      list.push_back(std::move(p));
    }
    return list;
  }

  // With both copies of a stage where the schedule has two.
  RankShare::Group group_of(int stage, bool routed) const {
    const MeshGroup kind = routed ? MeshGroup::edp : MeshGroup::dp_cp;
    const int copies = copies_of(share_.where, pp()), size = mesh_.size(kind);
    const int replicated = mesh_.extent(routed ? MeshAxis::edp_replicate : MeshAxis::dp_replicate);
    const int copy = copies > 1 && stage != pp() ? 1 : 0;
    RankShare::Group group{.routed = routed, .stages = {stage}};
    group.shards = replicated > 1 ? size / replicated : size * copies;
    group.replicas = replicated > 1 ? replicated * copies : 1;
    group.shard = (copy * size + mesh_.index_in(kind, rank_)) % group.shards;
    const bool both_ways = share_.where.order == StageOrder::both_ways;
    const int64_t data_ranks = mesh_.size(MeshGroup::dp) * (both_ways ? 2 : 1);
    const int64_t sources = share_.experts * share_.slices;
    if (routed && config_.train.exact && sources * group.ranks() == data_ranks) {
      group.sources = sources;
    }
    return group;
  }

  const RunConfig& config_;
  const Mesh& mesh_;
  int rank_;
  RankShare& share_;
  std::set<std::string> listed_;
};

}  // namespace

RankShare share_of(const RunConfig& config, int ranks, int rank, int64_t micro_batches) {
  const PartConfig part = part_config_of(config, ranks);
  const Mesh mesh(part.mesh, ranks);
  const int pp = mesh.extent(MeshAxis::pp);
  Schedule schedule = schedule_of(part, pp > 1 ? static_cast<int>(micro_batches) : 1);
  if (pp > 1 && config.parallel.zero_stage == 3) {
    schedule = add_sharding(std::move(schedule), {.reduce = false});
  }
  RankShare share{.tensor = mesh.extent(MeshAxis::tp),
                  .context = mesh.extent(MeshAxis::cp),
                  .experts = mesh.extent(MeshAxis::ep),
                  .slices = mesh.extent(MeshAxis::etp),
                  .summing_nodes = part.sum_in_nodes ? mesh.node_shape(MeshGroup::ep).nodes : 0,
                  .context_kind = part.context,
                  .slots = pp > 1 ? 1 : micro_batches,
                  .micro_batches = micro_batches,
                  .where = schedule.where,
                  .program = schedule.ranks[static_cast<size_t>(mesh.place(rank)[MeshAxis::pp])]};
  share.chunks =
      cut(config.model,
          part.blocks.empty() ? even_split(config.model, schedule.where.stages()) : part.blocks);
  Lister(config, mesh, rank, share).run();
  if (share.holds_shared && schedule.where.order != StageOrder::both_ways) {
    share.shared_slots = shared_slots(schedule, mesh.place(rank)[MeshAxis::pp]);
  }
  return share;
}

FlatGroup flat_group(const RunConfig& config, const RankShare& share,
                     const RankShare::Group& group) {
  Device device(DeviceKind::cpu, 0, 1);
  const ParamStore store(device, group.params, dtype_from_name(config.train.dtype),
                         {.weights = false, .masters = false, .gradients = false});
  const auto whole = [&](const Param& p) { return updated_by_muon(p.info, config.optim); };
  DataParallelConfig sharing = sharing_of(config);
  sharing.slots_overlap = share.where.ranks > 1 || group.sources > 1;
  std::vector<ParamUnit> units;
  const auto count = static_cast<int>(store.params().size());
  for (int i = 0; sharing.zero_stage > 1 && i < count; ++i) {
    // Experts of several sources are units by themselves.
    if (group.sources == 1 && i > 0) break;
    const auto more = units_of(store, i, group.sources == 1 ? count : i + 1);
    units.insert(units.end(), more.begin(), more.end());
  }
  const bool each_slot = reduces_each_slot(sharing);
  const std::vector<ParamExtent> extents =
      extents_of(store, {.first = 0, .last = count, .whole = whole});
  const std::vector<FlatRange> ranges = ranges_of(units);
  return {.params = store.params(),
          .elements = store.elements(),
          .layout = shards_of(
              sharing, {{0, store.elements()}, extents, ranges, group.sources, group.shards}),
          .units = std::move(units),
          .holds = sharing.zero_stage > 1 || (sharing.slots_overlap && each_slot)};
}

}  // namespace shoestring
