#include "parallel/reducing_source.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

ReducingSource::ReducingSource(ParamStore& store, const std::vector<ParamGroup>& groups,
                               Stream& compute, int64_t slot)
    : StoreSource(store), compute_(&compute), slot_(slot) {
  for (const ParamGroup& g : groups) {
    groups_.push_back(
        {g, g.weights == nullptr ? nullptr : std::make_unique<WeightPass>(*g.weights, compute)});
  }
}

ReducingSource::Group& ReducingSource::group_of(const Param& p) {
  for (Group& g : groups_) {
    const ParamGroup& plan = g.plan;
    if (plan.gradients != nullptr ? plan.gradients->has(p.index) : plan.weights->has(p.index)) {
      return g;
    }
  }
  fail(cat(p.info.name, " is in no group of parameters"));
}

int64_t ReducingSource::slot_of(const Group& group) const {
  return slot_ < 0 ? group.plan.gradients->last_slot() : slot_;
}

void ReducingSource::acquire(int segment, Phase phase) {
  open_.push_back(segment);
  if (phase != Phase::input || backward_) return;
  backward_ = true;
  for (Group& g : groups_) {
    if (g.pass) g.pass->turn_back();
  }
}

void ReducingSource::release(int segment, Phase phase) {
  check(!open_.empty() && open_.back() == segment, "segments end in another order than they began");
  open_.pop_back();
  // Recompute runs a segment forward that is still to go backward.
  if (phase == Phase::forward && backward_) return;
  for (const auto& [group, unit] : units_[segment]) group->pass->done(unit);
}

Tensor ReducingSource::weight(const Param& p) {
  Group& group = group_of(p);
  if (group.plan.weights == nullptr) return StoreSource::weight(p);
  const int unit = group.plan.weights->unit_of(p.index);
  group.pass->need(unit);
  if (!open_.empty()) units_[open_.back()].insert({&group, unit});
  return group.plan.weights->weight(p);
}

Tensor ReducingSource::gradient(const Param& p) {
  Group& group = group_of(p);
  if (group.plan.gradient) return group.plan.gradient(p);
  if (!group.plan.gradients->holds_gradients()) return StoreSource::gradient(p);
  return group.plan.gradients->gradient(p, slot_of(group));
}

void ReducingSource::gradient_ready(const Param& p) {
  Group& group = group_of(p);
  if (!group.plan.announce) return;
  const int64_t slot = slot_of(group);
  if (group.plan.complete) group.plan.complete(p, gradient(p), slot);
  group.plan.gradients->gradient_ready(p.index, slot, compute_->record());
}

}  // namespace shoestring
