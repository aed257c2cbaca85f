#include "launcher/parity_memory.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "core/text.h"
#include "launcher/memory_forecast.h"
#include "launcher/progress.h"
#include "launcher/rank_share.h"
#include "launcher/rank_state.h"
#include "launcher/state_forecast.h"

namespace shoestring {
namespace {

// What a rank's forecast says of each kind; of `other`, tables for the whole run, nothing.
MemoryFigures forecast_kinds(RankState& rank, const Batch& batch) {
  const int world = rank.ranks.size();
  const StepShape shape = rank.loader->schedule().at(batch.step);
  const RankShare share =
      share_of(rank.config, world, rank.ranks.rank(),
               most_micro_batches(shape.micro_batches, rank.part->data_ranks()));
  const StateForecast state = forecast_state(rank.config, share);
  const MemoryForecast step = forecast_memory(rank.config, {.sequences = shape.sequences,
                                                            .length = shape.length,
                                                            .threads = rank.device.threads(),
                                                            .share = share});
  MemoryFigures figures = {};
  for (size_t kind = 0; kind < num_memory_kinds; ++kind) {
    figures[kind] = {.peak = rank.device.ledger().peak(static_cast<MemoryKind>(kind)),
                     .rank = rank.ranks.rank(),
                     .band = band_of(static_cast<MemoryKind>(kind), rank.config)};
  }
  // `while_whole`: what comes and goes on top.
  const auto set = [&figures](MemoryKind kind, int64_t bytes, int64_t while_whole = 0) {
    MemoryFigure& f = figures[static_cast<size_t>(kind)];
    f.forecast = bytes + while_whole;
    if (while_whole == 0) return;
    f.band.least = static_cast<double>(bytes) / static_cast<double>(f.forecast);
    f.band.most = 1.1;
  };
  set(MemoryKind::weights, state.weights + step.weight_codes, state.gathered_weights);
  set(MemoryKind::gradients, state.gradients, state.waiting_gradients);
  set(MemoryKind::master_weights, state.master_weights);
  set(MemoryKind::moments, state.moments);
  set(MemoryKind::activations, step.peaks.activations);
  set(MemoryKind::workspace, step.peaks.workspace);
  set(MemoryKind::communication, step.peaks.communication);
  set(MemoryKind::data, step.peaks.data);
  if (rank.config.precision.on()) {
    // Of an FP8 recipe both are in one forecast, and the lower end is that of their sum.
    MemoryFigure& f = figures[static_cast<size_t>(MemoryKind::activations)];
    const auto inside = static_cast<double>(rank.device.ledger().peak(MemoryKind::workspace));
    f.band.least -= std::min(f.band.least, inside / static_cast<double>(f.forecast));
  }
  if (!batch.micro.empty()) return figures;
  // A data rank without a micro-batch takes part in reductions only, and makes no codes of weights.
  MemoryFigure& weights = figures[static_cast<size_t>(MemoryKind::weights)];
  weights.band.least = std::min(weights.band.least, static_cast<double>(state.weights) /
                                                        static_cast<double>(weights.forecast));
  for (const MemoryKind kind : {MemoryKind::activations, MemoryKind::workspace,
                                MemoryKind::communication, MemoryKind::data}) {
    figures[static_cast<size_t>(kind)].band.least = 0;
  }
  return figures;
}

double share_used(const MemoryFigure& f) {
  return static_cast<double>(f.peak) / static_cast<double>(std::max<int64_t>(f.forecast, 1));
}

// Beyond the band's nearer end, as a factor; 1: inside.
double distance_from_band(const MemoryFigure& f) {
  if (std::abs(f.peak - f.forecast) <= f.band.slack) return 1;
  const double used = share_used(f);
  return std::max({1.0, used / f.band.most, f.band.least / std::max(used, 1e-9)});
}

}  // namespace

void add_memory(RankState& rank, const Batch& batch, MemoryFigures& worst_of_all) {
  const MemoryFigures figures = forecast_kinds(rank, batch);
  for (size_t kind = 0; kind < num_memory_kinds; ++kind) {
    const MemoryFigure& figure = figures[kind];
    MemoryFigure& worst = worst_of_all[kind];
    const double far = distance_from_band(figure), so_far = distance_from_band(worst);
    // Of ranks that are as far off the one that holds most, whoever comes first.
    const bool first = worst.peak + worst.forecast == 0;
    if (first ||
        std::tuple(far, figure.peak, -figure.rank) > std::tuple(so_far, worst.peak, -worst.rank)) {
      worst = figure;
    }
  }
}

std::vector<std::string> misses_of_memory(const MemoryFigures& figures) {
  std::vector<std::string> misses;
  for (size_t i = 0; i < num_memory_kinds; ++i) {
    const auto kind = static_cast<MemoryKind>(i);
    const MemoryFigure& f = figures[i];
    if (distance_from_band(f) <= 1) continue;
    misses.push_back(cat(name_of(kind), ": the peak of rank ", f.rank, " is ", f.peak,
                         " bytes, forecast ", f.forecast, " (", text_of_fixed(share_used(f), 3),
                         " of it, and may be ", f.band.least, " to ", f.band.most, ")"));
  }
  return misses;
}

MemoryBand band_of(MemoryKind kind, const RunConfig& config) {
  constexpr MemoryBand unbounded = {.least = 0, .most = std::numeric_limits<double>::infinity()};
  constexpr int64_t slack = 4096;
  const bool routed = config.mesh.ep * config.mesh.etp > 1;
  // In FP8 what a product of the longest expert takes is among the activations.
  const bool uneven = routed || (config.precision.on() && config.model.moe.on());
  switch (kind) {
    case MemoryKind::weights:
    case MemoryKind::gradients:
    case MemoryKind::master_weights:
    case MemoryKind::moments:
      return {};
    case MemoryKind::activations:
      // The forecast does not know of what waits in host memory.
      return {.least = config.offload.activations ? 0
                       : routed                   ? 0.6
                                                  : 0.7,
              // Nor of regions that two passes in parts make again at once.
              .most = config.pipeline.overlap ? 2.5
                      : uneven                ? 1.6
                                              : 1.2,
              .slack = slack};
    case MemoryKind::communication:
      return {.least = 0.2, .most = routed ? 1.6 : 1.2, .slack = slack};
    case MemoryKind::workspace:
      if (config.precision.on()) return unbounded;
      return {.least = 0.3, .most = routed ? 1.6 : 1.2, .slack = slack};
    case MemoryKind::data:
      return {.least = 0.3, .most = 1.2, .slack = slack};
    case MemoryKind::other:
      break;
  }
  return unbounded;
}

}  // namespace shoestring
