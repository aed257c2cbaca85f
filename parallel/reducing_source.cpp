#include "parallel/reducing_source.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

ReducingSource::ReducingSource(ParamStore& store, const std::vector<ParamGroup>& groups,
                               Stream& compute, int64_t slot)
    : StoreSource(store), compute_(&compute), slot_(slot) {
  for (const ParamGroup& g : groups) {
    groups_.push_back(
        {g.gradients, g.weights, g.announce,
         g.weights == nullptr ? nullptr : std::make_unique<WeightPass>(*g.weights, compute)});
  }
}

ReducingSource::Group& ReducingSource::group_of(const Param& p) {
  for (Group& g : groups_) {
    if (g.gradients != nullptr ? g.gradients->has(p.index) : g.weights->has(p.index)) return g;
  }
  fail(cat(p.info.name, " is in no group of parameters"));
}

int64_t ReducingSource::slot_of(const Group& group) const {
  return slot_ < 0 ? group.gradients->last_slot() : slot_;
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
  if (group.weights == nullptr) return StoreSource::weight(p);
  const int unit = group.weights->unit_of(p.index);
  group.pass->need(unit);
  if (!open_.empty()) units_[open_.back()].insert({&group, unit});
  return group.weights->weight(p);
}

Tensor ReducingSource::gradient(const Param& p) {
  Group& group = group_of(p);
  if (!group.gradients->holds_gradients()) return StoreSource::gradient(p);
  return group.gradients->gradient(p, slot_of(group));
}

void ReducingSource::gradient_ready(const Param& p) {
  Group& group = group_of(p);
  if (!group.announce) return;
  group.gradients->gradient_ready(p.index, slot_of(group), compute_->record());
}

}  // namespace shoestring
