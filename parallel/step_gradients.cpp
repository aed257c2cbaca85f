#include "parallel/step_gradients.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/text.h"
#include "parallel/model_stages.h"
#include "parallel/reducing_source.h"

namespace shoestring {

StepGradients::StepGradients(ModelPart& part, ParamStore& store, Stream& compute,
                             const Config& config)
    : StoreSource(store),
      part_(part),
      store_(store),
      compute_(compute),
      exact_(config.sharing.exact),
      split_(static_cast<int>(part.dense_parameters())) {
  const size_t all = store.params().size(), split = part.dense_parameters();
  check(all == part.parameters().size(), "a store of other parameters");
  groups_[0] = make_group(0, split, part.replicas(), config);
  groups_[1] = make_group(split, all, part.expert_replicas(), config);
  count_uses();
}

StepGradients::Group StepGradients::make_group(size_t first, size_t last, Communicator& ranks,
                                               const Config& config) {
  const std::vector<Param>& params = store_.params();
  Group group{.first = first, .last = last};
  group.begin = first < params.size() ? params[first].offset : store_.elements();
  group.end = last < params.size() ? params[last].offset : store_.elements();
  group.stream = std::make_unique<Stream>(
      ranks.size() > 1 ? Stream::worker(store_.device(), first == 0 ? "gradients" : "expert grads")
                       : Stream::immediate(store_.device()));
  if (first == last) return group;
  std::vector<ParamExtent> extents;
  for (size_t i = first; i < last; ++i) {
    const Param& p = params[i];
    extents.push_back({p.offset - group.begin, p.offset - group.begin + p.elements,
                       config.whole != nullptr && config.whole(p)});
  }
  group.sharing = std::make_unique<DataParallel>(ranks, *group.stream, config.sharing,
                                                 group.end - group.begin, std::move(extents));
  return group;
}

template <class F>
void StepGradients::each_group(F&& f) const {
  for (const Group& group : groups_) {
    if (group.sharing) f(const_cast<Group&>(group));
  }
}

Communicator& StepGradients::ranks_of(const Group& group) const {
  return group.first == 0 ? part_.replicas() : part_.expert_replicas();
}

// How many stages of this rank use each parameter.
void StepGradients::count_uses() {
  uses_.assign(store_.params().size(), 0);
  for (const int stage : part_.stages()) {
    for (const ParamInfo& p :
         parameters_of(part_.model(), part_.chunks()[static_cast<size_t>(stage)])) {
      ++uses_[static_cast<size_t>(store_.param(p.name).index)];
    }
  }
}

void StepGradients::begin_step(int64_t micro_batches) {
  micro_batches_ = micro_batches;
  const Mesh& mesh = part_.mesh();
  const int64_t ranks = part_.data_ranks();
  const bool pipeline = part_.where().ranks > 1;
  slots_ = pipeline ? 1 : (micro_batches + ranks - 1) / ranks;
  slot_ = -1;
  const int64_t sequence = mesh.size(MeshGroup::sequence);
  each_group([&](Group& group) {
    if (pipeline) {
      group.micro_batches = ranks_of(group).size();
    } else if (group.first == 0) {
      group.micro_batches = micro_batches * mesh.extent(MeshAxis::cp);
    } else {
      group.micro_batches =
          micro_batches * sequence / (mesh.size(MeshGroup::ep) * mesh.size(MeshGroup::etp));
    }
  });
}

bool StepGradients::has_micro_batch(int64_t slot) const {
  return slot * part_.data_ranks() + part_.data_rank() < micro_batches_;
}

void StepGradients::begin_slot(int64_t slot) {
  slot_ = slot;
  const Placement& where = part_.where();
  const bool pipeline = where.ranks > 1;
  // In DualPipe each stage sees the micro-batches of one direction.
  const int64_t each = !pipeline ? 1
                       : where.order == StageOrder::both_ways
                           ? micro_batches_ / part_.data_ranks() / 2
                           : micro_batches_ / part_.data_ranks();
  left_.resize(uses_.size());
  for (size_t i = 0; i < uses_.size(); ++i) left_[i] = uses_[i] * each;
  if (slot == 0 || exact_) summed_.assign(uses_.size(), false);
  each_group([&](Group& group) {
    const auto range = store_.gradients().subspan(static_cast<size_t>(group.begin),
                                                  static_cast<size_t>(group.end - group.begin));
    group.sharing->begin_slot(range, slot, group.micro_batches);
    if (group.sharing->zero_before(slot)) std::memset(range.data(), 0, range.size_bytes());
  });
}

void StepGradients::announce(const Param& p) {
  Group& group = group_of(p);
  group.sharing->gradient_ready(p.index - static_cast<int>(group.first), compute_.record());
}

void StepGradients::sum_over_tensor_ranks(const Param& p) {
  const auto at = static_cast<size_t>(p.index);
  if (p.index >= split_ || summed_[at]) return;
  summed_[at] = true;
  part_.tensor().sum_gradient(store_, p, compute_);
}

void StepGradients::gradient_ready(const Param& p) {
  int64_t& left = left_.at(static_cast<size_t>(p.index));
  check(left > 0, "a gradient is announced more often than there are tapes");
  if (--left > 0) return;
  if (complete_in_slot()) sum_over_tensor_ranks(p);
  if (part_.embedding_holders() != nullptr && p.info.name == "embedding.weight") return;
  announce(p);
}

// The first stage's rows and, at the last stage, those of the head or of prediction modules.
void StepGradients::sum_embedding() {
  Communicator* holders = part_.embedding_holders();
  if (holders == nullptr) return;
  const Tensor g = store_.gradient(store_.param("embedding.weight"));
  holders->all_reduce({g.raw(), g.elements(), g.dtype()}, Reduce::sum, compute_);
}

void StepGradients::end_slot() {
  if (slot_ + 1 == slots_) {
    // A rank without a micro-batch in the last slot has announced nothing in it.
    for (const Param& p : store_.params()) sum_over_tensor_ranks(p);
    sum_embedding();
    compute_.synchronize();
  }
  each_group([](Group& group) { group.sharing->end_slot(); });
}

void StepGradients::finish() {
  each_group([](Group& group) { group.sharing->finish(); });
}

std::vector<StepGradients::Owned> StepGradients::owned_by_group() const {
  std::vector<Owned> all;
  each_group([&](Group& group) {
    Owned& owned = all.emplace_back();
    owned.rank = ranks_of(group).rank();
    for (const FlatRange r : group.sharing->owned_ranges()) {
      owned.ranges.push_back({r.begin + group.begin, r.end + group.begin});
    }
  });
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
  each_group([&](Group& group) {
    const int rank = ranks_of(group).rank();
    std::vector<FlatRange> pieces;
    for (const ShardLayout::Piece& piece : group.sharing->layout().pieces()) {
      if (piece.rank != rank) continue;
      pieces.push_back({piece.range.begin + group.begin, piece.range.end + group.begin});
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
  });
  return list;
}

void StepGradients::gather_parameters(Buffer store) {
  std::vector<Event> events;
  each_group([&](Group& group) {
    events.push_back(
        group.sharing->gather_parameters(store.part(group.begin, group.end - group.begin)));
  });
  for (const Event& event : events) event.wait();
}

DataParallelStats StepGradients::stats() const {
  DataParallelStats all;
  each_group([&](Group& group) {
    const DataParallelStats& s = group.sharing->stats();
    all.bytes_sent += s.bytes_sent;
    all.reduction_seconds += s.reduction_seconds;
    all.exposed_seconds += s.exposed_seconds;
    all.reductions += s.reductions;
  });
  return all;
}

void StepGradients::reset_stats() {
  each_group([](Group& group) { group.sharing->reset_stats(); });
}

}  // namespace shoestring
