#pragma once
// The bytes that the step of a run must send, by kind of call: the formulas of
// parallel/traffic_forecast.h, with the facts of the data told by the ranks that ran it.

#include <mutex>
#include <optional>

#include "core/batch.h"
#include "core/fp8/recipe.h"
#include "launcher/rank_state.h"
#include "parallel/traffic_forecast.h"

namespace shoestring {

class ParityTraffic {
 public:
  // Behind the step: rows that this rank's routers sent, and those of its micro-batches that have
  // no label. Thread-safe.
  void add(const RankState& rank, const Batch& batch);
  // Of all ranks together, once each has been added.
  TrafficForecast forecast() const;

 private:
  std::mutex mutex_;
  std::optional<StepFacts> facts_;
  std::optional<Fp8Recipe> recipe_;
};

}  // namespace shoestring
