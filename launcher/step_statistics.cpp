#include "launcher/step_statistics.h"

#include <array>
#include <cmath>

#include "core/text.h"

namespace shoestring {
namespace {

constexpr int64_t width = 3;  // squares, count, largest

std::string block_name(int64_t block) { return cat("layers.", block); }

}  // namespace

bool StepStatistics::due(const RunConfig& config, int64_t step) {
  const int64_t every = config.train.statistics_every;
  return every > 0 && (step + 1) % every == 0;
}

StepStatistics::StepStatistics(RankState& rank)
    : rank_(rank), own_{.width = rank.config.model.layers * width} {}

void StepStatistics::keep(const Tape& tape, int64_t micro) {
  own_.micro.push_back(micro);
  for (int64_t i = 0; i < rank_.config.model.layers; ++i) {
    const auto told = tape.statistics().find(block_name(i));
    const Statistic s = told == tape.statistics().end() ? Statistic() : told->second;
    own_.append({s.squares, s.count, s.largest});
  }
}

std::vector<std::pair<std::string, double>> StepStatistics::finish() const {
  const int64_t layers = rank_.config.model.layers;
  const MicroBatchRows all = gather_rows(rank_.ranks, rank_.communication, own_);
  std::vector<std::pair<std::string, double>> figures;
  for (int64_t i = 0; i < layers; ++i) {
    Statistic sum;
    for (size_t row = 0; row < all.micro.size(); ++row) {
      const double* from = all.row(row).data() + i * width;
      sum.add({.squares = from[0], .count = from[1], .largest = from[2]});
    }
    figures.emplace_back(cat("activation_rms/", block_name(i)), sum.rms());
    figures.emplace_back(cat("activation_absmax/", block_name(i)), sum.largest);
  }
  const auto squares = rank_.norm->class_squares(rank_.ranks, rank_.communication);
  std::array<bool, num_param_classes> present = {};
  for (const ParamInfo& p : parameters_of(rank_.config.model, whole_model(rank_.config.model))) {
    present[static_cast<size_t>(p.param_class)] = true;
  }
  for (size_t c = 0; c < squares.size(); ++c) {
    if (!present[c]) continue;
    const auto name = name_of(static_cast<ParamClass>(c));
    figures.emplace_back(cat("gradient_norm/", name), std::sqrt(squares[c]));
  }
  return figures;
}

}  // namespace shoestring
