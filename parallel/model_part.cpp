#include "parallel/model_part.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"
#include "parallel/model_stages.h"
#include "parallel/schedules/catalogue.h"

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

constexpr MeshGroup used_groups[] = {MeshGroup::tp,    MeshGroup::cp, MeshGroup::dp_cp,
                                     MeshGroup::stage, MeshGroup::pp, MeshGroup::ends,
                                     MeshGroup::ep,    MeshGroup::edp};

}  // namespace

Schedule schedule_of(const PartConfig& config, int micros) {
  return make_schedule(request_of(config, micros));
}

ModelPart::ModelPart(const ModelConfig& model, const PartConfig& config, Communicator& world,
                     Device& device)
    : model_(model),
      config_(laid_out(config, world.size())),
      mesh_(config_.mesh, world.size()),
      rank_(world.rank()),
      groups_(mesh_.split(world, used_groups)),
      where_(placement_of(request_of(config_, 1))),
      both_ways_(where_.order == StageOrder::both_ways),
      tensor_(std::make_unique<TensorParallel>(model_, group(MeshGroup::tp))) {
  const int stages = where_.stages();
  if (!config_.blocks.empty() && static_cast<int>(config_.blocks.size()) != stages) {
    fail_usage(cat("the layers are split into ", config_.blocks.size(), " stages, but the ranks ",
                   "have ", stages, " of them"));
  }
  chunks_ =
      shoestring::cut(model_, config_.blocks.empty() ? even_split(model_, stages) : config_.blocks);
  stages_ = stages_of(where_, place()[MeshAxis::pp]);
  std::sort(stages_.begin(), stages_.end());
  split_copies(world);
  list_parameters();
  make_context(world, device);
  make_experts(world);
}

// Where a schedule has copies of a stage, on ranks s and p - 1 - s of a pipeline: those with all
// their data ranks.
void ModelPart::split_copies(Communicator& world) {
  const int pp = place()[MeshAxis::pp], other = both_ways_ ? where_.ranks - 1 - pp : pp;
  const int pair = std::min(pp, other), copy = pp > other ? 1 : 0;
  const auto together = [&](MeshGroup g, int apart) {
    const int size = mesh_.size(g);
    return world.split(pair * mesh_.ranks() + apart, copy * size + mesh_.index_in(g, rank_));
  };
  statistics_ = together(MeshGroup::stage, 0);
  if (!both_ways_) return;
  const int stage_size = mesh_.size(MeshGroup::stage);
  dense_copies_ = together(MeshGroup::dp_cp, place()[MeshAxis::tp]);
  expert_copies_ = together(MeshGroup::edp, mesh_.index_in(MeshGroup::stage, rank_) %
                                                (stage_size / mesh_.size(MeshGroup::edp)));
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
  ring_ = world.split(mesh_.color(MeshGroup::cp, rank_), mesh_.index_in(MeshGroup::cp, rank_));
  ring_attention_ = std::make_unique<RingAttention>(*ring_, device);
}

void ModelPart::make_experts(Communicator& world) {
  const bool sliced = mesh_.extent(MeshAxis::etp) > 1;
  if (mesh_.extent(MeshAxis::ep) == 1 && !sliced) return;
  ExpertGroup experts{.experts = model_.moe.experts, .ranks = &group(MeshGroup::ep)};
  if (sliced) {
    slices_ =
        world.split(mesh_.color(MeshGroup::etp, rank_), mesh_.index_in(MeshGroup::etp, rank_));
    experts.slices = slices_.get();
  }
  const NodeShape nodes = mesh_.node_shape(MeshGroup::ep);
  if (nodes.even && nodes.nodes > 1 && nodes.per_node > 1) {
    expert_nodes_ = mesh_.split_by_node(world, MeshGroup::ep);
    experts.across = expert_nodes_.across.get();
    experts.inside = expert_nodes_.inside.get();
  }
  exchange_ = std::make_unique<ExpertExchange>(experts);
}

Communicator* ModelPart::embedding_holders() const {
  const bool apart = where_.order == StageOrder::loop && where_.ranks > 1;
  const bool copied = model_.tied_embeddings || model_.mtp.depth > 0;
  return apart && copied && groups_.has(MeshGroup::ends) ? &group(MeshGroup::ends) : nullptr;
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
  const bool copy = info.name == "embedding.weight" && embedding_holders() != nullptr &&
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
