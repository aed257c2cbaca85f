#include "launcher/piece_costs.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/check.h"
#include "core/fp8/layer.h"
#include "core/text.h"
#include "launcher/key_places.h"
#include "launcher/memory_forecast.h"
#include "launcher/plan.h"
#include "launcher/progress.h"
#include "launcher/rank_share.h"
#include "parallel/model_stages.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

// Tokens as from a text of evenly frequent words, one document a row.
MicroBatch sample_of(const ModelConfig& model, const LoadSegment& segment) {
  MicroBatch micro;
  micro.sequences = segment.sequences;
  micro.length = segment.length;
  uint32_t state = 1;
  for (int64_t row = 0; row < micro.sequences; ++row) {
    for (int64_t column = 0; column < micro.length; ++column) {
      state = state * 1664525 + 1013904223;
      micro.tokens.push_back(static_cast<int32_t>((state >> 8) % model.vocabulary));
      micro.positions.push_back(static_cast<int32_t>(column));
      micro.first_key.push_back(0);
    }
  }
  const auto tokens = static_cast<int64_t>(micro.tokens.size());
  for (int64_t i = 0; i < tokens; ++i) {
    const bool last = (i + 1) % micro.length == 0;
    micro.labels.push_back(last ? -1 : micro.tokens[static_cast<size_t>(i + 1)]);
  }
  micro.valid_labels = tokens - micro.sequences;
  return micro;
}

// A stage of its own for the embedding, for one block of each kind, and for the head.
struct Pieces {
  std::vector<Chunk> chunks;
  int dense = -1, sparse = -1;  // stages
};
Pieces pieces_of(const ModelConfig& model) {
  Pieces pieces;
  pieces.chunks.push_back({.first_block = 0, .last_block = 0, .embedding = true, .head = false});
  for (int64_t i = 0; i < model.layers; ++i) {
    int& stage = model.moe.sparse(i) ? pieces.sparse : pieces.dense;
    if (stage >= 0) continue;
    stage = static_cast<int>(pieces.chunks.size());
    pieces.chunks.push_back(
        {.first_block = i, .last_block = i + 1, .embedding = false, .head = false});
  }
  pieces.chunks.push_back(
      {.first_block = model.layers, .last_block = model.layers, .embedding = false, .head = true});
  return pieces;
}

std::vector<int> numbers_below(int n) {
  std::vector<int> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// The stages one after the other on one rank.
class Bench {
 public:
  Bench(const RunConfig& config, const Pieces& pieces, int threads)
      : stages_(static_cast<int>(pieces.chunks.size())),
        where_{.chunks = stages_},
        device_(DeviceKind::cpu, 0, threads),
        stream_(Stream::immediate(device_)),
        store_(device_, parameters_of(config.model, pieces.chunks, numbers_below(stages_)),
               dtype_from_name(config.train.dtype)),
        source_(store_),
        sample_(sample_of(config.model, load_segments(config)[0])) {
    store_.initialise(static_cast<uint64_t>(config.run.seed));
    if (config.precision.on()) {
      fp8_.emplace(resolve(config.precision), store_, config.model.layers);
    }
    ModelStagesOptions options;
    options.recompute = recompute_from_name(config.train.recompute);
    options.fp8 = fp8_ ? &*fp8_ : nullptr;
    options.exact = config.train.exact;
    options.z_loss = config.train.z_loss;
    if (config.model.moe.balance.global_batch > 0) options.loads = &loads_;
    const StagePlan plan{.model = config.model, .chunks = pieces.chunks, .where = where_};
    work_.emplace(plan, store_, source_, stream_, options);
    for (int64_t i = 0; i < config.model.layers + config.model.mtp.depth; ++i) {
      const std::string prefix = block_prefix(config.model, i);
      const std::vector<double> even(static_cast<size_t>(config.model.moe.experts), 1);
      add_load(loads_[prefix.substr(0, prefix.size() - 1)], even, 1);
    }
  }

  // Adds the seconds of each stage.
  void run(std::vector<std::vector<double>>& seconds) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> own(static_cast<size_t>(stages_));
    const auto timed = [&](int stage, const auto& pass) {
      const auto start = Clock::now();
      Tensor made = pass();
      own[static_cast<size_t>(stage)] +=
          std::chrono::duration<double>(Clock::now() - start).count();
      return made;
    };
    work_->begin({to_device(device_, sample_)}, 1 / static_cast<double>(sample_.valid_labels), {1});
    Tensor x;
    for (int s = 0; s < stages_; ++s) x = timed(s, [&] { return work_->forward(s, 0, x); });
    Tensor dy;
    for (int s = stages_; s-- > 0;) dy = timed(s, [&] { return work_->backward(s, 0, dy); });
    for (size_t s = 0; s < own.size(); ++s) seconds[s].push_back(own[s]);
  }

 private:
  int stages_;
  Placement where_;
  Device device_;
  Stream stream_;
  ParamStore store_;
  StoreSource source_;
  MicroBatch sample_;
  std::optional<Fp8Plan> fp8_;
  ExpertLoads loads_;
  std::optional<ModelStages> work_;
};

struct Typical {
  double median = 0, spread = 0;
};
Typical typical(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  // Between two values their line.
  const auto at = [&values](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return std::lerp(values[below], values[above], place - static_cast<double>(below));
  };
  const double median = at(0.5);
  return {.median = median, .spread = (at(0.75) - at(0.25)) / median};
}

}  // namespace

PieceTimes measure_pieces(const RunConfig& config, int threads, int rounds) {
  const Pieces pieces = pieces_of(config.model);
  Bench bench(config, pieces, threads);
  std::vector<std::vector<double>> seconds(pieces.chunks.size());
  bench.run(seconds);  // the first one meets cold memory
  for (auto& of_stage : seconds) of_stage.clear();
  for (int round = 0; round < rounds; ++round) bench.run(seconds);
  const auto of = [&](int stage) {
    return stage < 0 ? Typical() : typical(seconds[static_cast<size_t>(stage)]);
  };
  const Typical embedding = of(0), dense = of(pieces.dense), sparse = of(pieces.sparse),
                head = of(static_cast<int>(pieces.chunks.size()) - 1);
  return {.embedding = embedding.median,
          .dense = dense.median,
          .sparse = sparse.median,
          .head = head.median,
          .spread = {.embedding = embedding.spread,
                     .dense = dense.spread,
                     .sparse = sparse.spread,
                     .head = head.spread}};
}

std::string text_of_noise(const PieceTimes& times) {
  constexpr double quiet = 0.1;
  std::string pieces;
  const auto add = [&](const char* name, double spread) {
    if (!(spread > quiet)) return;
    append(pieces, pieces.empty() ? "" : ", ", name, " ", text_of_fixed(100 * spread, 0), " %");
  };
  add("embedding", times.spread.embedding);
  add("dense block", times.spread.dense);
  add("sparse block", times.spread.sparse);
  add("head", times.spread.head);
  if (pieces.empty()) return "";
  return cat("rounds of the same piece differ by more than a tenth of their median (", pieces,
             "): the machine is busy with other work as well, and the split may be another one on ",
             "a quiet machine");
}

void require_memory_to_measure(const RunConfig& config, int threads, int64_t memory_bytes) {
  const Pieces pieces = pieces_of(config.model);
  const auto stages = static_cast<int>(pieces.chunks.size());
  RankShare share;
  share.where.chunks = stages;
  share.chunks = pieces.chunks;
  for (int s = 0; s < stages; ++s) {
    share.program.push_back({.what = Do::F, .stage = static_cast<int16_t>(s)});
  }
  for (int s = stages; s-- > 0;) {
    share.program.push_back({.what = Do::B, .stage = static_cast<int16_t>(s)});
  }
  share.groups = {{.params = parameters_of(config.model, pieces.chunks, numbers_below(stages))}};
  double bytes = 0;  // in f64: sizes that a config may name overflow 64 bits
  for (const ParamInfo& p : share.groups[0].params) {
    double own = config.train.dtype == "f32" ? 8 : 10;
    for (const int64_t dim : p.shape.dims()) own *= static_cast<double>(dim);
    bytes += own;
  }
  const LoadSegment segment = load_segments(config)[0];
  const auto available = static_cast<double>(memory_bytes);
  if (bytes <= available) {
    const ForecastInput input{.sequences = segment.sequences,
                              .length = segment.length,
                              .threads = threads,
                              .share = share};
    bytes += static_cast<double>(forecast_memory(config, input).total());
  }
  if (bytes <= available) return;
  fail_usage(with_places(
      cat("pipeline.split = \"measured\": one block of each kind, the embedding and the head ",
          "on the first rank need at least ", text_of_bytes(bytes),
          " to be measured, but the machine has ", text_of_bytes(available),
          "; write pipeline.layers, or choose a smaller train.micro_batch"),
      config.set_at));
}

PieceCosts costs_of(const ModelConfig& model, const PieceTimes& times) {
  PieceCosts costs{.embedding = times.embedding, .head = times.head};
  for (int64_t i = 0; i < model.layers; ++i) {
    costs.blocks.push_back(model.moe.sparse(i) ? times.sparse : times.dense);
  }
  return costs;
}

int pipeline_stages(const RunConfig& config) {
  ScheduleRequest request{.name = config.mesh.pp > 1 ? config.pipeline.schedule : "1f1b",
                          .ranks = static_cast<int>(config.mesh.pp)};
  if (config.pipeline.chunks > 0) request.chunks = static_cast<int>(config.pipeline.chunks);
  return placement_of(request).stages();
}

std::string text_of_split(const PieceCosts& costs, const std::vector<int64_t>& blocks) {
  const std::vector<double> stages = stage_costs(costs, blocks);
  const double dearest = *std::max_element(stages.begin(), stages.end());
  const double mean =
      std::accumulate(stages.begin(), stages.end(), 0.0) / static_cast<double>(stages.size());
  std::string text;
  for (const int64_t n : blocks) append(text, text.empty() ? "" : " + ", n);
  append(text, " blocks, the dearest stage ", text_of_fixed(dearest / mean, 2), " of the mean");
  return text;
}

}  // namespace shoestring
