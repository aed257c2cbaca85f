#include "parallel/model_part.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/by_stream.h"
#include "parallel/comm/collectives.h"
#include "parallel/model_stages.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

ScheduleRequest request_of(const PartConfig& config, int micros) {
  ScheduleRequest request{.name = config.mesh.pp > 1 ? config.schedule : "1f1b",
                          .ranks = static_cast<int>(config.mesh.pp),
                          .micros = micros};
  if (config.chunks > 0) request.chunks = config.chunks;
  return request;
}

PartConfig laid_out(PartConfig config, int ranks) {
  config.mesh = config.mesh.resolved(ranks);
  return config;
}

constexpr MeshGroup used_groups[] = {MeshGroup::tp, MeshGroup::cp, MeshGroup::pp, MeshGroup::ep};

}  // namespace

Schedule schedule_of(const PartConfig& config, int micros) {
  Schedule schedule = make_schedule(request_of(config, micros));
  const bool pairs = config.overlap && config.mesh.pp > 1 && !has_pairs(schedule);
  return pairs ? pair_overlap(std::move(schedule)) : schedule;
}

Placement placement_of(const PartConfig& config) { return placement_of(request_of(config, 1)); }

ModelPart::ModelPart(const ModelConfig& model, const PartConfig& config, Communicator& world,
                     Device& device)
    : model_(model),
      config_(laid_out(config, world.size())),
      world_(world),
      mesh_(config_.mesh, world.size()),
      rank_(world.rank()),
      groups_(mesh_.split(world, used_groups)),
      where_(placement_of(config_)),
      both_ways_(where_.order == StageOrder::both_ways),
      tensor_(std::make_unique<TensorParallel>(model_, group(MeshGroup::tp), device,
                                               config_.tensor_chunks)) {
  const int stages = where_.stages();
  if (!config_.blocks.empty() && static_cast<int>(config_.blocks.size()) != stages) {
    fail_usage(cat("the layers are split into ", config_.blocks.size(), " stages, but the ranks ",
                   "have ", stages, " of them"));
  }
  chunks_ =
      shoestring::cut(model_, config_.blocks.empty() ? even_split(model_, stages) : config_.blocks);
  stages_ = stages_of(where_, place()[MeshAxis::pp]);
  std::sort(stages_.begin(), stages_.end());
  // Where a schedule has copies of a stage, on ranks s and p - 1 - s of a pipeline: with both.
  const int pp = place()[MeshAxis::pp], other = both_ways_ ? where_.ranks - 1 - pp : pp;
  {
    const SplitName name("stage and copies");
    statistics_ = world.split(std::min(pp, other), (pp > other ? mesh_.size(MeshGroup::stage) : 0) +
                                                       mesh_.index_in(MeshGroup::stage, rank_));
  }
  list_parameters();
  make_context(world, device);
  make_experts(world);
}

Replicas ModelPart::split_replicas(int stage, bool experts, bool takes_part) const {
  const MeshGroup same = experts ? MeshGroup::edp : MeshGroup::dp_cp;
  const int size = mesh_.size(same), stage_ranks = mesh_.size(MeshGroup::stage);
  const int replicated = mesh_.extent(experts ? MeshAxis::edp_replicate : MeshAxis::dp_replicate);
  const int apart = experts ? mesh_.index_in(MeshGroup::stage, rank_) % (stage_ranks / size)
                            : place()[MeshAxis::tp];
  // The copy of a stage that runs the second half of the micro-batches stands behind the first.
  const int copy = both_ways_ && stage != place()[MeshAxis::pp] ? 1 : 0;
  const int place = copy * size + mesh_.index_in(same, rank_);
  const int group = stage * (stage_ranks / size) + apart;
  // One level: all places are less than this.
  const int shards = replicated > 1 ? size / replicated : 2 * size;
  // Colors count the sets of a kind without gaps: there are about as many as ranks.
  const auto split = [&](int within, int cut, int cuts, std::string_view of) {
    const SplitName name(cat(name_of(same), of));
    return world_.split(takes_part ? group * cuts + cut : -1, within);
  };
  Replicas replicas;
  replicas.data_ranks = data_ranks() * (both_ways_ ? 2 : 1);
  replicas.data_rank = copy * data_ranks() + data_rank();
  replicas.shard = split(place, place / shards, 2 * size / shards, " shards");
  if (replicated > 1) replicas.replicate = split(place, place % shards, shards, " copies");
  return replicas;
}

SharedBy embedding_sharing(const ModelConfig& model, const Placement& where,
                           const std::vector<int>& stages) {
  const bool copied = model.tied_embeddings || model.mtp.depth > 0;
  const int last = where.stages() - 1;
  const bool has_first = stages.front() == 0, has_last = stages.back() == last;
  if (last == 0 || !copied || (!has_first && !has_last)) return SharedBy::nobody;
  if (where.order == StageOrder::both_ways) return SharedBy::mirrored;
  return has_first && has_last ? SharedBy::here : SharedBy::ends;
}

std::unique_ptr<Communicator> ModelPart::split_sharers() const {
  const SharedBy sharing = embedding_sharing();
  const bool takes_part = sharing == SharedBy::ends || sharing == SharedBy::mirrored;
  const SplitName name("embedding sharers");
  return world_.split(takes_part ? mesh_.index_in(MeshGroup::stage, rank_) : -1,
                      place()[MeshAxis::pp]);
}

void ModelPart::list_parameters() {
  parameters_ = tensor_->shard(parameters_of(model_, chunks_, stages_));
  const ExpertPart part{.rank = place()[MeshAxis::ep],
                        .ranks = mesh_.extent(MeshAxis::ep),
                        .slice = place()[MeshAxis::etp],
                        .slices = mesh_.extent(MeshAxis::etp)};
  for (ParamInfo& info : parameters_) {
    if (is_of_experts(info)) info = part_of_experts(std::move(info), model_.moe.experts, part);
  }
  if (embedding_sharing() != SharedBy::nobody) {
    std::stable_partition(parameters_.begin(), parameters_.end(),
                          [](const ParamInfo& p) { return p.name == "embedding.weight"; });
  }
  const auto experts = std::stable_partition(parameters_.begin(), parameters_.end(),
                                             [](const ParamInfo& p) { return !is_of_experts(p); });
  dense_ = static_cast<size_t>(experts - parameters_.begin());
}

void ModelPart::make_context(Communicator& world, Device& device) {
  if (mesh_.extent(MeshAxis::cp) == 1) return;
  Communicator& context = group(MeshGroup::cp);
  const Boundaries& rows = tensor_->boundaries();
  sequences_ = std::make_unique<SequenceEdges>(context, rows.gather_alike, rows.keep);
  if (config_.context == ContextKind::all_to_all) {
    all_to_all_ = std::make_unique<AllToAllAttention>(context);
    return;
  }
  const SplitName name("cp ring");
  ring_ = world.split(mesh_.color(MeshGroup::cp, rank_), mesh_.index_in(MeshGroup::cp, rank_));
  ring_attention_ = std::make_unique<RingAttention>(*ring_, device);
}

// What backward passes call on their own stream.
Communicator* ModelPart::for_both_passes(Communicator* usual, std::unique_ptr<Communicator> other) {
  if (usual == nullptr || other == nullptr) return usual;
  both_passes_.push_back(std::move(other));
  both_passes_.push_back(by_stream(*usual, *both_passes_.back(), &backward_));
  return both_passes_.back().get();
}

void ModelPart::make_experts(Communicator& world) {
  const bool sliced = mesh_.extent(MeshAxis::etp) > 1;
  if (mesh_.extent(MeshAxis::ep) == 1 && !sliced) return;
  ExpertGroup experts{.experts = model_.moe.experts,
                      .ranks = &group(MeshGroup::ep),
                      .rows_of_capacity = config_.fixed_rows,
                      .sum_in_nodes = config_.sum_in_nodes};
  if (sliced) {
    const SplitName name("expert slices");
    slices_ =
        world.split(mesh_.color(MeshGroup::etp, rank_), mesh_.index_in(MeshGroup::etp, rank_));
    experts.slices = slices_.get();
  }
  if (mesh_.node_shape(MeshGroup::ep).two_levels()) {
    expert_nodes_ = mesh_.split_by_node(world, MeshGroup::ep);
    experts.across = expert_nodes_.across.get();
    experts.inside = expert_nodes_.inside.get();
  }
  if (config_.overlap) {
    const auto split = [&](MeshGroup g) {
      return world.split(mesh_.color(g, rank_), mesh_.index_in(g, rank_));
    };
    const SplitName name("backward experts");
    experts.ranks = for_both_passes(experts.ranks, split(MeshGroup::ep));
    if (sliced) experts.slices = for_both_passes(experts.slices, split(MeshGroup::etp));
    if (experts.across != nullptr) {
      NodeCommunicators nodes = mesh_.split_by_node(world, MeshGroup::ep);
      experts.across = for_both_passes(experts.across, std::move(nodes.across));
      experts.inside = for_both_passes(experts.inside, std::move(nodes.inside));
    }
  }
  exchange_ = std::make_unique<ExpertExchange>(experts);
}

Boundaries ModelPart::boundaries() const {
  Boundaries edges = tensor_->boundaries();
  if (sequences_) {
    edges.gather_alike = sequences_->gather();
    edges.keep = sequences_->keep();
  }
  return edges;
}

AttentionCore* ModelPart::attention() const {
  if (ring_attention_) return ring_attention_.get();
  return all_to_all_.get();
}

MicroBatch ModelPart::cut(const MicroBatch& whole) const {
  const int ranks = mesh_.extent(MeshAxis::cp);
  if (ranks == 1) return whole;
  return cut_context(whole, context_share(whole.length, place()[MeshAxis::cp], ranks),
                     model_.mtp.depth);
}

void ModelPart::begin_micro_batch(int64_t sequences) {
  if (sequences_) sequences_->set_sequences(sequences);
}

int64_t ModelPart::rows_of(const BatchTensors& batch) const {
  return batch.sequences * batch.length / mesh_.extent(MeshAxis::tp);
}

std::vector<FlatRange> ModelPart::counted(const ParamInfo& info) const {
  const int64_t all = info.shape.elements();
  const bool copy = info.name == "embedding.weight" && embedding_sharing() == SharedBy::ends &&
                    place()[MeshAxis::pp] != 0;
  if (copy) return {};
  const int tp = place()[MeshAxis::tp];
  switch (is_of_experts(info) ? GradientSum::none
                              : gradient_sum_of(model_, info, mesh_.extent(MeshAxis::tp))) {
    case GradientSum::none:
      return {{0, all}};
    case GradientSum::group:
      return tp == 0 ? std::vector<FlatRange>{{0, all}} : std::vector<FlatRange>{};
    case GradientSum::shared_heads: {
      // Of the ranks with the same keys and values the first counts them.
      const int64_t ranks = mesh_.extent(MeshAxis::tp), sharers = ranks / model_.kv_heads;
      if (tp % sharers == 0) return {{0, all}};
      return {{0, info.shard.rows[1].local * (all / info.shape[0])}};
    }
  }
  fail("an unknown sum of gradients");
}

}  // namespace shoestring
