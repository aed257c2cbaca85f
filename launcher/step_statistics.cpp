#include "launcher/step_statistics.h"

#include <array>
#include <cmath>

#include "core/text.h"
#include "optim/norm.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

constexpr int64_t width = 3;  // squares, count, largest

std::string block_name(int64_t block) { return cat("layers.", block); }

// Each rank adds up the pieces that it owns of the reduced gradient.
std::array<double, num_param_classes> class_sums(const RankState& rank) {
  const FlatSpan<const float> gradients{rank.store->gradients()};
  std::array<double, num_param_classes> sums = {};
  for (const ShardLayout::Piece& piece : rank.parallel->layout().pieces()) {
    if (piece.rank != rank.ranks.rank()) continue;
    const auto part =
        class_square_sums(rank.store->device(), rank.store->params(), gradients, piece.range);
    for (size_t c = 0; c < sums.size(); ++c) sums[c] += part[c];
  }
  return sums;
}

}  // namespace

bool StepStatistics::due(const RunConfig& config, int64_t step) {
  const int64_t every = config.train.statistics_every;
  return every > 0 && (step + 1) % every == 0;
}

void StepStatistics::keep(const Tape& tape) {
  for (int64_t i = 0; i < rank_.config.model.layers; ++i) {
    const Statistic& s = tape.statistics().at(block_name(i));
    own_.insert(own_.end(), {s.squares, s.count, s.largest});
  }
}

std::vector<std::pair<std::string, double>> StepStatistics::finish(int64_t micro_batches) const {
  const int64_t layers = rank_.config.model.layers;
  const std::vector<double> all =
      gather_micro_batches(rank_.ranks, rank_.communication, own_, micro_batches, layers * width);
  std::vector<std::pair<std::string, double>> figures;
  for (int64_t i = 0; i < layers; ++i) {
    Statistic sum;
    for (int64_t g = 0; g < micro_batches; ++g) {
      const double* from = all.data() + (g * layers + i) * width;
      sum.add({.squares = from[0], .count = from[1], .largest = from[2]});
    }
    figures.emplace_back(cat("activation_rms/", block_name(i)), sum.rms());
    figures.emplace_back(cat("activation_absmax/", block_name(i)), sum.largest);
  }
  std::array<double, num_param_classes> squares = class_sums(rank_);
  rank_.ranks.all_reduce(buffer_of(std::span(squares)), Reduce::sum, rank_.communication);
  rank_.communication.synchronize();
  std::array<bool, num_param_classes> present = {};
  for (const Param& p : rank_.store->params()) {
    present[static_cast<size_t>(p.info.param_class)] = true;
  }
  for (size_t c = 0; c < squares.size(); ++c) {
    if (!present[c]) continue;
    const auto name = name_of(static_cast<ParamClass>(c));
    figures.emplace_back(cat("gradient_norm/", name), std::sqrt(squares[c]));
  }
  return figures;
}

}  // namespace shoestring
