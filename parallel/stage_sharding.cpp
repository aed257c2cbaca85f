#include "parallel/stage_sharding.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

StageSharding::StageSharding(ParamStore& store, Stream& compute, const Placement& where, int rank,
                             std::vector<StageGroup> groups)
    : store_(store), compute_(compute), where_(where), rank_(rank) {
  for (StageGroup& group : groups) {
    check(group.params.gradients != nullptr && !group.stages.empty(),
          "a group of a stage's parameters without stage or reduction");
    // Several stages add to a shared parameter's gradient: it is complete when all have ended.
    group.params.announce = group.stages.size() == 1;
    groups_.push_back({.plan = std::move(group), .ended = {}});
  }
}

bool StageSharding::uses(const Group& group, int stage) const {
  const std::vector<int>& stages = group.plan.stages;
  return std::find(stages.begin(), stages.end(), stage) != stages.end();
}

int64_t StageSharding::slot_of(int stage, int micro) const {
  check(where_.rank_of(stage, micro) == rank_, "a stage of another rank");
  const bool second = where_.order == StageOrder::both_ways && micro >= where_.micros / 2;
  return second ? micro - where_.micros / 2 : micro;
}

void StageSharding::begin(int64_t micro_batches) {
  micro_batches_ = where_.order == StageOrder::both_ways ? micro_batches / 2 : micro_batches;
  for (Group& group : groups_) {
    group.begun = 0;
    group.ended.clear();
    group.gathered = 0;
  }
}

std::unique_ptr<ParamSource> StageSharding::source(int stage, int micro) {
  const int64_t slot = slot_of(stage, micro);
  std::vector<ParamGroup> mine;
  for (Group& group : groups_) {
    if (!uses(group, stage)) continue;
    mine.push_back(group.plan.params);
    const FlatRange range = group.plan.range;
    std::span<float> gradients = store_.gradients();
    if (!gradients.empty()) {
      gradients = gradients.subspan(static_cast<size_t>(range.begin),
                                    static_cast<size_t>(range.elements()));
    }
    for (; group.begun <= slot; ++group.begun) {
      group.plan.params.gradients->begin_slot(gradients, group.begun, micro_batches_);
    }
  }
  return std::make_unique<ReducingSource>(store_, mine, compute_, slot);
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

void StageSharding::end_slot(Group& group, int64_t slot) {
  if (++group.ended[slot] == group.plan.stages.size()) group.plan.params.gradients->end_slot(slot);
}

void StageSharding::reduce(int stage, int micro) {
  const int64_t slot = slot_of(stage, micro);
  for (Group& group : groups_) {
    if (!uses(group, stage)) continue;
    // Where a reduction is for all micro-batches, S stands behind the last of them.
    const bool each = group.plan.params.gradients->zero_before(1);
    for (int64_t s = each ? slot : 0; s < (each ? slot + 1 : group.begun); ++s) end_slot(group, s);
  }
}

void StageSharding::finish() {
  for (Group& group : groups_) {
    if (group.plan.params.weights != nullptr) group.plan.params.weights->finish();
    group.plan.params.gradients->finish();
  }
}

}  // namespace shoestring
