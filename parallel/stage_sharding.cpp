#include "parallel/stage_sharding.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/ops/convert.h"
#include "core/text.h"

namespace shoestring {

StageSharding::StageSharding(ParamStore& store, Stream& compute, const Placement& where, int rank,
                             std::vector<StageGroup> groups)
    : store_(store), compute_(compute), where_(where), rank_(rank) {
  for (StageGroup& group : groups) {
    check(group.params.gradients != nullptr && !group.stages.empty(),
          "a group of a stage's parameters without stage or reduction");
    Group& g = groups_.emplace_back();
    g.plan = std::move(group);
    if (g.plan.shared == SharedBy::nobody) continue;
    // Its gradient is complete when all stages that share it have ended a slot.
    g.plan.params.announce = false;
    for (const Param& p : store.params()) {
      if (!g.plan.params.gradients->has(p.index)) continue;
      check(g.param == nullptr, "a group of several parameters that stages share");
      g.param = &p;
    }
    const bool elsewhere = g.plan.shared != SharedBy::here;
    const bool known = !elsewhere || (g.plan.sharers != nullptr && g.plan.sharers->size() == 2);
    check(g.param != nullptr && known && g.plan.stream != nullptr,
          "a shared parameter without the ranks that have it");
  }
}

bool StageSharding::uses(const Group& group, int stage) const {
  const std::vector<int>& stages = group.plan.stages;
  return std::find(stages.begin(), stages.end(), stage) != stages.end();
}

int64_t StageSharding::slot_of(int stage, int micro) const {
  check(where_.rank_of(stage, micro) == rank_, "a stage of another rank");
  const bool second = where_.order == StageOrder::both_ways && micro >= where_.micros / 2;
  return first_slot_ + (second ? micro - where_.micros / 2 : micro);
}

void StageSharding::begin(int64_t micro_batches, int micros) {
  where_.micros = micros;
  micro_batches_ = micro_batches;
  first_slot_ = 0;
  for (Group& group : groups_) {
    group.begun = 0;
    group.ended.clear();
    group.parts.clear();
    group.gathered = 0;
  }
}

void StageSharding::begin_slots(Group& group, int64_t last) {
  const FlatRange range = group.plan.range;
  std::span<float> gradients = store_.gradients();
  if (!gradients.empty()) {
    gradients =
        gradients.subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.elements()));
  }
  for (; group.begun <= last; ++group.begun) {
    group.plan.params.gradients->begin_slot(gradients, group.begun, micro_batches_);
  }
}

std::unique_ptr<ParamSource> StageSharding::source(int stage, int micro) {
  const int64_t slot = slot_of(stage, micro);
  std::vector<ParamGroup> mine;
  for (Group& group : groups_) {
    if (!uses(group, stage)) continue;
    begin_slots(group, slot);
    mine.push_back(group.plan.params);
    if (!sums_apart(group)) continue;
    mine.back().gradient = [this, &group, slot, stage](const Param&) {
      return part(group, slot, stage);
    };
  }
  return std::make_unique<ReducingSource>(store_, mine, compute_, slot);
}

std::unique_ptr<ParamSource> StageSharding::source_of_evaluation(int stage) {
  std::vector<ParamGroup> mine;
  for (Group& group : groups_) {
    if (uses(group, stage)) mine.push_back({.weights = group.plan.params.weights});
  }
  return std::make_unique<ReducingSource>(store_, mine, compute_);
}

void StageSharding::idle_in_evaluation(int stage) {
  for (Group& group : groups_) {
    if (!uses(group, stage) || group.plan.params.weights == nullptr) continue;
    group.plan.params.weights->idle(false);
  }
}

void StageSharding::idle(int64_t slot) {
  for (Group& group : groups_) {
    begin_slots(group, slot);
    if (group.plan.params.weights != nullptr) group.plan.params.weights->idle();
    close(group, slot);
  }
}

bool StageSharding::gathers_weights() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const Group& g) { return g.plan.params.weights != nullptr; });
}

void StageSharding::gather(int stage, int) {
  for (Group& group : groups_) {
    if (!uses(group, stage) || group.plan.params.weights == nullptr) continue;
    if (group.gathered++ == 0) group.plan.params.weights->gather();
  }
}

void StageSharding::release(int stage, int) {
  for (Group& group : groups_) {
    if (!uses(group, stage) || group.plan.params.weights == nullptr) continue;
    if (--group.gathered == 0) group.plan.params.weights->release(compute_.record());
  }
}

// Whether stages add to gradients of their own: what they add to one gradient would be rounded in
// the order in which they happen to run.
bool StageSharding::sums_apart(const Group& group) const {
  const bool both = group.plan.shared == SharedBy::here || group.plan.shared == SharedBy::mirrored;
  return both && group.plan.params.gradients->zero_before(1);
}

// Of two stages here, by their order; of both directions, by direction: the order of the ranks that
// get the sums.
Tensor StageSharding::part(Group& group, int64_t slot, int stage) {
  const Param& p = *group.param;
  Tensor& parts = group.parts[slot];
  if (!parts) {
    parts = Tensor::zeros(store_.device(), {2, p.elements}, Dtype::f32, MemoryKind::gradients);
  }
  const bool mirrored = group.plan.shared == SharedBy::mirrored;
  const int64_t at = stage != (mirrored ? rank_ : group.plan.stages.front());
  return parts.rows(at, at + 1).reshape(p.info.shape);
}

// A micro-batch's gradient from the parts that its stages added, with one rounding.
void StageSharding::add_parts(Group& group, int64_t slot) {
  const auto found = group.parts.find(slot);
  check(found != group.parts.end(), "a shared parameter without gradient");
  const Tensor parts = std::move(found->second);
  group.parts.erase(found);
  const int64_t elements = group.param->elements;
  const Tensor sum =
      group.plan.params.gradients->gradient(*group.param, slot).reshape({1, elements});
  if (group.plan.shared == SharedBy::here) {
    for (const int64_t k : {0, 1}) accumulate(compute_, sum, parts.rows(k, k + 1));
    return;
  }
  Stream& stream = *group.plan.stream;
  stream.wait(compute_.record());
  const std::array<int64_t, 2> counts = {elements, elements};
  group.plan.sharers->reduce_scatter({parts.raw(), parts.elements(), Dtype::f32}, counts,
                                     {sum.raw(), elements, Dtype::f32}, Reduce::sum, stream);
  stream.run([parts, sum] {});  // they live until then
}

// The part of another rank.
void StageSharding::add_end(Group& group, int64_t slot) {
  DataParallel& gradients = *group.plan.params.gradients;
  const Param& p = *group.param;
  const Tensor sum = gradients.holds_gradients() ? gradients.gradient(p, slot) : store_.gradient(p);
  group.plan.stream->wait(compute_.record());
  group.plan.sharers->all_reduce({sum.raw(), sum.elements(), sum.dtype()}, Reduce::sum,
                                 *group.plan.stream);
}

void StageSharding::close(Group& group, int64_t slot) {
  DataParallel& gradients = *group.plan.params.gradients;
  if (group.plan.slot_ends) group.plan.slot_ends(slot);
  if (sums_apart(group)) {
    add_parts(group, slot);
  } else if (group.plan.shared == SharedBy::ends &&
             (gradients.zero_before(1) || slot + 1 == gradients.slots(micro_batches_))) {
    add_end(group, slot);
  }
  gradients.end_slot(slot, compute_.record());
}

void StageSharding::end_slot(Group& group, int64_t slot, int stage) {
  std::set<int>& ended = group.ended[slot];
  if (!ended.insert(stage).second) return;
  if (ended.size() == group.plan.stages.size()) close(group, slot);
}

void StageSharding::reduce(int stage, int micro) {
  const int64_t slot = slot_of(stage, micro);
  for (Group& group : groups_) {
    if (!uses(group, stage)) continue;
    // Where a reduction is for all micro-batches, S stands behind the last of them.
    const bool each = group.plan.params.gradients->zero_before(1);
    for (int64_t s = each ? slot : 0; s < (each ? slot + 1 : group.begun); ++s) {
      end_slot(group, s, stage);
    }
  }
}

void StageSharding::finish() {
  for (Group& group : groups_) {
    if (group.plan.params.weights != nullptr) group.plan.params.weights->finish();
    group.plan.params.gradients->finish();
  }
}

}  // namespace shoestring
