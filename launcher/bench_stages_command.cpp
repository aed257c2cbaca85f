#include "launcher/bench_stages_command.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/memory_forecast.h"
#include "launcher/piece_costs.h"
#include "launcher/rank_state.h"
#include "parallel/model_stages.h"

namespace shoestring {
namespace {

double dearest_over_mean(const PieceCosts& costs, const std::vector<int64_t>& blocks) {
  const std::vector<double> stages = stage_costs(costs, blocks);
  const double sum = std::accumulate(stages.begin(), stages.end(), 0.0);
  return *std::max_element(stages.begin(), stages.end()) * static_cast<double>(stages.size()) / sum;
}

}  // namespace

StagesBench bench_stages(const BenchStagesOptions& options) {
  if (options.rounds < 1) fail_usage(cat("--rounds is ", options.rounds, "; 1 or more"));
  const RunConfig config = with_vocabulary(
      read_config<RunConfig>({.file = options.config, .overrides = options.overrides}));
  if (config.mesh.pp < 2) {
    fail_usage(cat("mesh.pp = ", config.mesh.pp, ": there are no stages to split the model into; ",
                   "--set mesh.pp=N says how many ranks the pipeline has"));
  }
  require_memory_to_measure(config, static_cast<int>(config.threads), memory_of_machine());
  const PieceTimes times =
      measure_pieces(config, static_cast<int>(config.threads), static_cast<int>(options.rounds));
  const PieceCosts costs = costs_of(config.model, times);
  const int stages = pipeline_stages(config);
  const std::vector<int64_t> best = balanced_split(costs, stages);
  StagesBench bench;
  const auto piece = [&bench](const char* name, double seconds, double spread) {
    if (!(seconds > 0)) return;
    bench.rows.push_back({cat("piece/", name), seconds * 1e3, "ms"});
    bench.rows.push_back({cat("spread/", name), spread, "of the median"});
  };
  piece("embedding", times.embedding, times.spread.embedding);
  piece("dense_block", times.dense, times.spread.dense);
  piece("sparse_block", times.sparse, times.spread.sparse);
  piece("head", times.head, times.spread.head);
  bench.note = text_of_noise(times);
  const auto split = [&](const char* name, const std::vector<int64_t>& blocks) {
    bench.rows.push_back(
        {cat("split/", name), dearest_over_mean(costs, blocks), "dearest stage / mean"});
  };
  if (stages <= config.model.layers) split("even", even_split(config.model, stages));
  if (!config.pipeline.layers.empty()) split("config", config.pipeline.layers);
  split("measured", best);
  bench.blocks = best;
  bench.layers = "pipeline.layers = [";
  for (size_t i = 0; i < best.size(); ++i) append(bench.layers, i > 0 ? ", " : "", best[i]);
  bench.layers += ']';
  return bench;
}

}  // namespace shoestring
