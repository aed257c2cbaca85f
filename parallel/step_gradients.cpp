#include "parallel/step_gradients.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/text.h"
#include "parallel/model_stages.h"
#include "parallel/param_units.h"

namespace shoestring {
StepGradients::StepGradients(ModelPart& part, ParamStore& store, Stream& compute,
                             const Config& config)
    : part_(part),
      store_(store),
      compute_(compute),
      zero_stage_(config.sharing.zero_stage),
      each_slot_(reduces_each_slot(config.sharing)) {
  check(store.params().size() == part.parameters().size(), "a store of other parameters");
  list_groups();
  std::vector<FlatRange> owned;
  for (Group& group : groups_) {
    lay_out(group, config);
    owned.insert(owned.end(), group.owned.begin(), group.owned.end());
  }
  int64_t elements = 0;
  for (const FlatRange r : owned) elements += r.elements();
  host_ = config.host;
  if (zero_stage_ > 1 || host_ != nullptr) {
    Device& memory = host_ != nullptr ? *host_ : store.device();
    sums_ = Tensor::zeros(memory, {elements}, Dtype::f32, MemoryKind::gradients);
  }
  shards_ = std::make_unique<ParamShards>(ParamShardsPlan{
      .store = store, .owned = std::move(owned), .zero_stage = zero_stage_, .host = host_});
  int64_t first = 0;
  for (Group& group : groups_) {
    make_group(group, first);
    for (const FlatRange r : group.owned) first += r.elements();
  }
  sharers_ = part.split_sharers();
  std::vector<StageGroup> plans;
  for (Group& group : groups_) {
    if (group.sharing) plans.push_back(plan_of(group));
  }
  const int rank = part.place()[MeshAxis::pp];
  sharding_ = std::make_unique<StageSharding>(store, compute, part.where(), rank, std::move(plans));
}

// An embedding that stages share, then dense parameters and experts: of each stage apart where a
// reduction follows each micro-batch. All ranks list as many groups in the same order, for they
// split the world for each; an empty one is the call that others need.
void StepGradients::list_groups() {
  const std::vector<Param>& params = store_.params();
  std::vector<std::vector<int>> users(params.size());  // stages, ascending
  for (const int stage : part_.stages()) {
    const Chunk& chunk = part_.chunks()[static_cast<size_t>(stage)];
    for (const ParamInfo& p : parameters_of(part_.model(), chunk)) {
      users[static_cast<size_t>(store_.param(p.name).index)].push_back(stage);
    }
  }
  const bool shared = part_.embedding_sharing() != SharedBy::nobody;
  groups_.push_back({.first = 0, .last = shared ? size_t{1} : 0, .shared = true});
  if (shared) groups_[0].stages = users[0];
  for (const bool experts : {false, true}) {
    size_t next = experts ? part_.dense_parameters() : groups_[0].last;
    const size_t end = experts ? params.size() : part_.dense_parameters();
    const std::vector<int>& stages = part_.stages();
    for (size_t at = 0; at < stages.size(); ++at) {
      Group& group = groups_.emplace_back();
      group.experts = experts;
      group.first = next;
      if (each_slot_) {
        group.stages = {stages[at]};
        while (next < end && users[next] == group.stages) ++next;
      } else {
        group.stages = at == 0 ? stages : std::vector<int>{};
        if (at == 0) next = end;
      }
      group.last = next;
    }
    check(next == end, "parameters of a stage are not neighbours");
  }
}

// Who has the group's parameters, and which of them are this rank's.
void StepGradients::lay_out(Group& group, const Config& config) {
  const std::vector<Param>& params = store_.params();
  const bool any = group.first < group.last;
  const bool takes_part = group.shared ? any : !group.stages.empty();
  group.ranks =
      part_.split_replicas(takes_part ? group.stages.front() : 0, group.experts, takes_part);
  if (!any) return;
  const auto offset = [&](size_t i) {
    return i < params.size() ? params[i].offset : store_.elements();
  };
  const int first = static_cast<int>(group.first), last = static_cast<int>(group.last);
  const int64_t experts = part_.mesh().extent(MeshAxis::ep) * part_.mesh().extent(MeshAxis::etp);
  group.range = {offset(group.first), offset(group.last)};
  group.params = extents_of(store_, {.first = first, .last = last, .whole = config.whole});
  group.config = config.sharing;
  if (group.experts && config.sharing.exact &&
      experts * group.ranks.ranks() == group.ranks.data_ranks) {
    group.sources = experts;
  }
  group.config.slots_overlap = part_.where().ranks > 1 || group.sources > 1;
  // Its reductions wait for the other rank's part, which may come behind our next ones. DualPipe's
  // pairs of ranks do the same at the same time.
  const bool at_ends = group.shared && part_.embedding_sharing() == SharedBy::ends;
  if (at_ends) group.config.in_flight = 0;
  if (zero_stage_ > 1) {
    for (int i = first; i < last; ++i) {
      // Experts that have several sources are units by themselves, as DataParallel wants them.
      if (group.sources == 1 && i > first) continue;
      const std::vector<ParamUnit> units = units_of(store_, i, group.sources == 1 ? last : i + 1);
      group.units.insert(group.units.end(), units.begin(), units.end());
    }
  }
  const int shards = group.ranks.shard->size();
  const std::vector<FlatRange> units = ranges_of(group.units);
  const ShardLayout layout =
      shards_of(group.config, {group.range, group.params, units, group.sources, shards});
  group.owned = zero_stage_ == 0 ? std::vector<FlatRange>{group.range}
                                 : layout.owned(group.ranks.shard->rank());
}

// `first_owned`: elements that this rank owns of groups before this one.
void StepGradients::make_group(Group& group, int64_t first_owned) {
  const bool any = group.first < group.last;
  if (!any) return;
  const bool elsewhere = group.shared && part_.embedding_sharing() != SharedBy::here;
  group.stream = std::make_unique<Stream>(
      group.ranks.ranks() > 1 || elsewhere
          ? Stream::worker(store_.device(), group.experts ? "expert grads" : "gradients")
          : Stream::immediate(store_.device()));
  DataParallelPlan plan{.shard = *group.ranks.shard,
                        .replicate = group.ranks.replicate.get(),
                        .stream = *group.stream,
                        .config = group.config,
                        .range = group.range,
                        .first_param = static_cast<int>(group.first),
                        .params = group.params,
                        .units = ranges_of(group.units),
                        .data_ranks = group.ranks.data_ranks,
                        .data_rank = group.ranks.data_rank,
                        .sources = group.sources,
                        .host = host_};
  int64_t owned = 0;
  for (const FlatRange r : group.owned) owned += r.elements();
  if (sums_) plan.sums = sums_.rows(first_owned, first_owned + owned);
  group.sharing = std::make_unique<DataParallel>(plan);
  if (!gathers_weights()) return;
  group.weights = std::make_unique<GatheredWeights>(GatherPlan{.shard = *group.ranks.shard,
                                                               .store = store_,
                                                               .layout = group.sharing->layout(),
                                                               .shards = *shards_,
                                                               .units = group.units,
                                                               .first = first_owned});
}

StageGroup StepGradients::plan_of(Group& group) {
  StageGroup plan;
  plan.params.gradients = group.sharing.get();
  plan.params.weights = group.weights.get();
  plan.range = group.range;
  plan.stages = group.stages;
  if (group.shared) {
    plan.shared = part_.embedding_sharing();
    plan.sharers = sharers_.get();
    plan.stream = group.stream.get();
    return plan;
  }
  if (group.experts || part_.mesh().extent(MeshAxis::tp) == 1) return plan;
  plan.params.complete = [this](const Param& p, const Tensor& gradient, int64_t) {
    if (each_slot_ || --left_[static_cast<size_t>(p.index)] == 0) {
      part_.tensor().sum_gradient(p, gradient, compute_);
    }
  };
  if (each_slot_) return plan;
  // Of a micro-batch that others have in the last round, this rank has announced nothing.
  plan.slot_ends = [this, &group](int64_t slot) {
    if (slot + 1 != group.sharing->slots(micro_batches_)) return;
    for (size_t i = group.first; i < group.last; ++i) {
      if (std::exchange(left_[i], 0) <= 0) continue;
      const Param& p = store_.params()[i];
      part_.tensor().sum_gradient(p, store_.gradient(p), compute_);
    }
  };
  return plan;
}

ShardingOptions StepGradients::instructions() const {
  // Without pipelines each unit is gathered when it is needed.
  return {.gather = gathers_weights() && part_.where().ranks > 1,
          .reduce = true,
          .reduce_each = each_slot_};
}

void StepGradients::begin_step(int64_t micro_batches) {
  micro_batches_ = micro_batches;
  const int64_t ranks = part_.data_ranks();
  if (micro_batches % ranks != 0 && (part_.where().ranks > 1 || part_.experts() != nullptr)) {
    fail(cat(micro_batches, " micro-batches on ", ranks,
             " data ranks: with pipelines or experts on ",
             "several ranks each takes equally many"));
  }
  rounds_ = part_.where().ranks > 1 ? 1 : (micro_batches + ranks - 1) / ranks;
  left_.assign(store_.params().size(), 0);
  for (const Group& group : groups_) {
    if (!group.sharing) continue;
    int64_t own = 0;
    for (int64_t s = 0; s < group.sharing->slots(micro_batches); ++s) {
      own += group.sharing->has_micro_batch(s, micro_batches) ? 1 : 0;
    }
    for (size_t i = group.first; i < group.last; ++i) left_[i] = own;
  }
  zero_gradients();
  sharding_->begin(micro_batches,
                   part_.where().ranks > 1 ? static_cast<int>(micro_batches / ranks) : 1);
}

// Those that are added up in the store.
void StepGradients::zero_gradients() {
  const std::span<float> gradients = store_.gradients();
  for (const Group& group : groups_) {
    if (!group.sharing || group.sharing->holds_gradients()) continue;
    std::memset(gradients.data() + group.range.begin, 0,
                static_cast<size_t>(group.range.elements()) * sizeof(float));
  }
}

void StepGradients::begin_round(int64_t round) {
  if (round > 0 && each_slot_) zero_gradients();
  sharding_->begin_round(round);
}

bool StepGradients::has_micro_batch(int64_t round) const {
  return round * part_.data_ranks() + part_.data_rank() < micro_batches_;
}

void StepGradients::finish() { sharding_->finish(); }

FlatSpan<const float> StepGradients::gradients() const {
  if (!sums_) return {store_.gradients()};
  return {sums_.span<float>(), 0, shards_->owned()};
}

int StepGradients::Group::replica() const { return ranks.replicate ? ranks.replicate->rank() : 0; }

std::vector<StepGradients::Owned> StepGradients::owned_by_group() const {
  std::vector<Owned> all;
  for (const Group& group : groups_) {
    if (!group.sharing) continue;
    const int shards = group.ranks.shard->size(), shard = group.ranks.shard->rank();
    all.push_back({.ranges = group.owned,
                   .rank = zero_stage_ > 0 ? group.replica() : group.replica() * shards + shard});
  }
  return all;
}

std::vector<FlatRange> StepGradients::owned_ranges() const {
  std::vector<FlatRange> all;
  for (const Owned& group : owned_by_group()) {
    all.insert(all.end(), group.ranges.begin(), group.ranges.end());
  }
  return all;
}

std::vector<ParamRange> StepGradients::counted() const {
  std::vector<ParamRange> list;
  for (const Group& group : groups_) {
    if (!group.sharing || group.replica() > 0) continue;
    std::vector<FlatRange> pieces;
    for (const ShardLayout::Piece& piece : group.sharing->layout().pieces()) {
      if (piece.rank == group.ranks.shard->rank()) pieces.push_back(piece.range);
    }
    for (size_t i = group.first; i < group.last; ++i) {
      const Param& p = store_.params()[i];
      for (const FlatRange c : part_.counted(p.info)) {
        for (const FlatRange piece : pieces) {
          const int64_t begin = std::max(piece.begin - p.offset, c.begin);
          const int64_t end = std::min(piece.end - p.offset, c.end);
          if (begin < end) list.push_back({p.index, begin, end});
        }
      }
    }
  }
  return list;
}

void StepGradients::gather_parameters() {
  shards_->publish(compute_);
  if (gathers_weights()) return;
  const bool copies = store_.compute() == Dtype::bf16;
  const Buffer store = copies ? buffer_of(store_.compute_copy()) : buffer_of(store_.master());
  std::vector<Event> events;
  for (const Group& group : groups_) {
    if (!group.sharing) continue;
    events.push_back(
        group.sharing->gather_parameters(store.part(group.range.begin, group.range.elements())));
  }
  for (const Event& event : events) event.wait();
}

DataParallelStats StepGradients::stats() const {
  DataParallelStats all;
  for (const Group& group : groups_) {
    if (!group.sharing) continue;
    const DataParallelStats s = group.sharing->stats();
    all.bytes_sent += s.bytes_sent;
    all.reduction_seconds += s.reduction_seconds;
    all.exposed_seconds += s.exposed_seconds;
    all.reductions += s.reductions;
  }
  return all;
}

void StepGradients::reset_stats() {
  for (const Group& group : groups_) {
    if (group.sharing) group.sharing->reset_stats();
  }
}

}  // namespace shoestring
