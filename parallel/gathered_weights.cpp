#include "parallel/gathered_weights.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

Buffer buffer_of_tensor(const Tensor& t) { return {t.raw(), t.elements(), t.dtype()}; }

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

GatheredWeights::GatheredWeights(const GatherPlan& plan)
    : parent_(plan.shard),
      store_(plan.store),
      layout_(plan.layout),
      shards_(plan.shards),
      lane_(plan.shard.split(0, plan.shard.rank())),
      stream_(plan.shard.size() > 1 ? Stream::worker(plan.store.device(), "gather")
                                    : Stream::immediate(plan.store.device())) {
  const std::vector<ShardLayout::Bucket>& buckets = layout_.buckets();
  check(buckets.size() == plan.units.size(), "a layout of other units");
  int64_t at = plan.first;
  for (size_t u = 0; u < plan.units.size(); ++u) {
    const size_t bucket = buckets.size() - 1 - u;  // they descend
    const ParamUnit& unit = plan.units[u];
    check(buckets[bucket].range == unit.range, "a layout of other units");
    units_.push_back({.range = unit.range, .held = unit.held, .bucket = bucket, .shard_begin = at});
    at += buckets[bucket].counts[static_cast<size_t>(parent_.rank())];
    unit_of_param_.insert(unit_of_param_.end(), static_cast<size_t>(unit.last - unit.first),
                          static_cast<int>(u));
  }
  if (plan.units.empty()) return;
  first_param_ = plan.units.front().first;
  last_param_ = plan.units.back().last;
  check(shards_.weights().elements() >= at, "shards of another layout");
}

GatheredWeights::~GatheredWeights() {
  if (std::uncaught_exceptions() > exceptions_) {
    lane_->abort("it left a training step by an exception");
  }
  try {
    stream_.synchronize();
  } catch (const std::exception&) {
    // Who waited for the weights was told.
  }
}

void GatheredWeights::gather() {
  check(!kept_, "weights are gathered twice");
  kept_ = true;
  for (int u = 0; u < units(); ++u) acquire(u);
}

void GatheredWeights::release(const Event& used) {
  check(kept_, "weights are released that were not gathered");
  kept_ = false;
  for (int u = 0; u < units(); ++u) release(u, used);
}

void GatheredWeights::finish() {
  check(!kept_, "a step ends with weights that are still gathered");
  const auto begin = Clock::now();
  stream_.synchronize();
  stats_.exposed_seconds += seconds(Clock::now() - begin);
}

void GatheredWeights::acquire(int u) {
  Unit& unit = units_[static_cast<size_t>(u)];
  if (unit.users++ > 0) return;
  const auto begin = Clock::now();
  unit.weights = Tensor(store_.device(), {unit.range.elements()}, shards_.weights().dtype(),
                        MemoryKind::weights);
  enqueue(u, buffer_of_tensor(unit.weights));
  unit.ready = stream_.record();
  if (unit.ready.happened()) stats_.exposed_seconds += seconds(Clock::now() - begin);
}

void GatheredWeights::enqueue(int u, Buffer into) {
  const Unit& unit = units_[static_cast<size_t>(u)];
  const std::vector<int64_t>& counts = layout_.buckets()[unit.bucket].counts;
  const int64_t own = counts[static_cast<size_t>(parent_.rank())];
  stats_.bytes_sent += own * static_cast<int64_t>(size_of(into.dtype)) * (parent_.size() - 1);
  ++stats_.gathers;
  stream_.run([this] { gather_begin_ = Clock::now(); });
  lane_->all_gather(buffer_of_tensor(shards_.weights()).part(unit.shard_begin, own), counts, into,
                    stream_);
  stream_.run([this] { stats_.gather_seconds += seconds(Clock::now() - gather_begin_); });
}

// `used`: when whoever reads the weights has read them.
void GatheredWeights::release(int u, const Event& used) {
  Unit& unit = units_[static_cast<size_t>(u)];
  if (--unit.users > 0) return;
  if (used.happened() && unit.ready.happened()) {
    unit.weights = {};
    return;
  }
  stream_.wait(used);
  stream_.run([weights = std::move(unit.weights)]() mutable { weights = {}; });
  unit.weights = {};
}

void GatheredWeights::wait(int u, Stream& compute) {
  const auto begin = Clock::now();
  const Awaiting waits("weights");
  compute.wait(units_[static_cast<size_t>(u)].ready);
  stats_.exposed_seconds += seconds(Clock::now() - begin);
}

Tensor GatheredWeights::weight(const Param& p) const {
  const Unit& unit = units_.at(static_cast<size_t>(unit_of(p.index)));
  if (!unit.weights) fail(cat("the weights of ", p.info.name, " are read but not gathered"));
  const auto offset =
      static_cast<size_t>(p.offset - unit.range.begin) * size_of(unit.weights.dtype());
  return Tensor(unit.weights.block(), offset, p.info.shape, unit.weights.dtype());
}

void GatheredWeights::idle(bool backward) {
  if (kept_ || parent_.size() == 1) return;
  int64_t largest = 0;
  for (const Unit& unit : units_) largest = std::max(largest, unit.range.elements());
  Tensor unused(store_.device(), {largest}, shards_.weights().dtype(), MemoryKind::weights);
  const auto take = [&](int u) {
    enqueue(u, buffer_of_tensor(unused).part(0, units_[static_cast<size_t>(u)].range.elements()));
  };
  for (int u = 0; u < units(); ++u) take(u);
  for (int u = units(); backward && u-- > 0;) {
    if (!units_[static_cast<size_t>(u)].held) take(u);
  }
  stream_.run([unused = std::move(unused)]() mutable { unused = {}; });
}

GatherStats GatheredWeights::stats() const { return stats_; }

WeightPass::WeightPass(GatheredWeights& weights, Stream& compute)
    : weights_(weights), compute_(compute), mine_(static_cast<size_t>(weights.units())) {}

WeightPass::~WeightPass() {
  if (std::uncaught_exceptions() > exceptions_) return;
  try {
    finish();
  } catch (const std::exception&) {
    // An error of the gathers' stream: the next wait for weights, or whoever ends the step, has it.
  }
}

// Enqueues the gathers up to a unit in the order of the pass.
void WeightPass::sweep(int to) {
  while (backward_ ? next_ >= to : next_ <= to) {
    const int unit = next_;
    next_ += backward_ ? -1 : 1;
    if (mine_[static_cast<size_t>(unit)]) continue;  // held since the forward pass
    weights_.acquire(unit);
    mine_[static_cast<size_t>(unit)] = true;
  }
}

void WeightPass::drop(int unit) {
  if (!mine_[static_cast<size_t>(unit)]) return;
  mine_[static_cast<size_t>(unit)] = false;
  weights_.release(unit, compute_.record());
}

void WeightPass::turn_back() {
  if (backward_) return;
  in_kept_ |= weights_.kept_;
  if (!weights_.kept_) {
    for (; next_ < weights_.units();) {  // that the forward pass did not use
      const int unit = next_;
      sweep(unit);
      if (!weights_.units_[static_cast<size_t>(unit)].held) drop(unit);
    }
    for (int u = 0; u < weights_.units(); ++u) {
      if (!weights_.units_[static_cast<size_t>(u)].held) drop(u);
    }
  }
  backward_ = true;
  next_ = weights_.units() - 1;
}

void WeightPass::need(int unit) {
  in_kept_ |= weights_.kept_;
  if (!weights_.kept_) {
    const int ahead = unit + (backward_ ? -1 : 1);
    sweep(std::clamp(ahead, 0, weights_.units() - 1));
    if (!mine_[static_cast<size_t>(unit)]) {
      fail(cat("the weights of unit ", unit, " are read again after they were let go"));
    }
  }
  weights_.wait(unit, compute_);
}

void WeightPass::done(int unit) {
  if (!weights_.kept_ && !weights_.units_[static_cast<size_t>(unit)].held) drop(unit);
}

// What was kept for the pass may be let go before it ends: weight gradients read no weights.
void WeightPass::finish() {
  if (!weights_.kept_ && !in_kept_) {
    const int end = backward_ ? -1 : weights_.units();
    while (next_ != end) {
      const int unit = next_;
      sweep(unit);
      drop(unit);
    }
  }
  for (int u = 0; u < weights_.units(); ++u) drop(u);
}

}  // namespace shoestring
