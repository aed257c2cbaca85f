#include "launcher/parity_traffic.h"

#include "core/check.h"
#include "launcher/mesh_layout.h"

namespace shoestring {
namespace {

StepFacts facts_of(const RankState& rank, const Batch& batch) {
  const RunConfig& config = rank.config;
  const StepShape shape = rank.loader->schedule().at(batch.step);
  StepFacts facts{
      .model = config.model,
      .part = rank.part->config(),
      .ranks = rank.ranks.size(),
      .dtype = dtype_from_name(config.train.dtype),
      .sharing = sharing_of(config),
      .whole = [optim = config.optim](const Param& p) { return updated_by_muon(p.info, optim); },
      .recompute = recompute_from_name(config.train.recompute),
      .micro_batches = batch.global_micro_batches,
      .sequences = shape.sequences,
      .length = shape.length,
      .loads = config.model.moe.balance.global_batch > 0};
  // The ranks of a data rank have the same micro-batches: one of them tells.
  const MeshPlace& place = rank.part->place();
  if (rank.part->tells_sequences() && place[MeshAxis::pp] == 0) {
    facts.rows_without_labels = rows_without_labels(facts, batch.micro);
  }
  if (const ExpertExchange* exchange = rank.part->exchange()) facts.experts = exchange->sent();
  return facts;
}

}  // namespace

void ParityTraffic::add(const RankState& rank, const Batch& batch) {
  StepFacts own = facts_of(rank, batch);
  const std::lock_guard lock(mutex_);
  if (!facts_) {
    facts_ = std::move(own);
    if (rank.fp8) recipe_ = rank.fp8->recipe();
    return;
  }
  facts_->rows_without_labels += own.rows_without_labels;
  for (const auto& [block, rows] : own.experts) facts_->experts[block] += rows;
}

TrafficForecast ParityTraffic::forecast() const {
  check(facts_.has_value(), "no rank has told of its step");
  StepFacts facts = *facts_;
  facts.fp8 = recipe_ ? &*recipe_ : nullptr;
  return forecast_traffic(facts);
}

}  // namespace shoestring
