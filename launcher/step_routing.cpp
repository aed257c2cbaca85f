#include "launcher/step_routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/text.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

constexpr int64_t width = 4;  // entropy, tokens, balance losses, dropped
constexpr std::string_view bias_suffix = ".moe.router.bias";

}  // namespace

StepRouting::StepRouting(RankState& rank) : rank_(rank), balance_(rank.config.model.moe.balance) {
  experts_ = rank.config.model.moe.experts;
  for (const ModelState& state : rank.store->states()) {
    if (!state.name.ends_with(bias_suffix)) continue;
    blocks_.push_back(state.name.substr(0, state.name.size() - bias_suffix.size()));
    biases_.push_back(state.values);
  }
}

void StepRouting::begin() {
  counts_.assign(blocks_.size() * static_cast<size_t>(experts_), 0);
  own_.clear();
  if (!with_loads()) return;
  for (const std::string& block : blocks_) {
    loads_[block] = {.counts = std::vector<double>(static_cast<size_t>(experts_), 0), .tokens = 0};
  }
  if (rank_.ranks.size() > 1 && !apart_) apart_ = rank_.ranks.split(0, rank_.ranks.rank());
}

void StepRouting::keep(const Tape* tape, double share) {
  if (!any()) return;
  if (with_loads()) share_loads(tape);
  if (tape == nullptr) return;
  for (size_t i = 0; i < blocks_.size(); ++i) add_layer(i, *tape, share);
}

// The counts of this slot's micro-batches on all ranks join those of the slots before.
void StepRouting::share_loads(const Tape* tape) {
  const auto stride = static_cast<size_t>(experts_) + 1;
  std::vector<double> slot(blocks_.size() * stride, 0);
  for (size_t i = 0; tape != nullptr && i < blocks_.size(); ++i) {
    const RouteFigures f = RouteFigures::of(tape->told().at(blocks_[i] + ".routing"));
    std::copy(f.counts.begin(), f.counts.end(), slot.begin() + static_cast<int64_t>(i * stride));
    slot[(i + 1) * stride - 1] = f.tokens;
  }
  if (apart_) {
    apart_->all_reduce(buffer_of(std::span(slot)), Reduce::sum, rank_.compute);
    rank_.compute.synchronize();
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    ExpertLoad& load = loads_.at(blocks_[i]);
    for (size_t e = 0; e + 1 < stride; ++e) load.counts[e] += slot[i * stride + e];
    load.tokens += slot[(i + 1) * stride - 1];
  }
}

// The losses of core/ops/route.h with their coefficients.
double StepRouting::balance_of(size_t layer, const RouteFigures& f) const {
  const auto experts = static_cast<double>(experts_);
  const ExpertLoad* load = with_loads() ? &loads_.at(blocks_[layer]) : nullptr;
  double micro = 0, global = 0;
  for (size_t e = 0; e < f.counts.size(); ++e) {
    const double mean = f.probabilities[e] / f.tokens;
    micro += f.counts[e] / f.tokens * mean;
    if (load) global += load->counts[e] / load->tokens * mean;
  }
  return balance_.sequence * f.sequence + balance_.switch_loss * experts * micro +
         balance_.global_batch * experts * global + balance_.z_loss * f.squared_lse / f.tokens;
}

void StepRouting::add_layer(size_t layer, const Tape& tape, double share) {
  const RouteFigures f = RouteFigures::of(tape.told().at(blocks_[layer] + ".routing"));
  const std::span<int32_t> offsets = tape.told().at(blocks_[layer] + ".offsets").span<int32_t>();
  double chosen = 0;
  for (size_t e = 0; e < f.counts.size(); ++e) {
    counts_[layer * f.counts.size() + e] += f.counts[e];
    chosen += f.counts[e];
  }
  own_.insert(own_.end(), {f.entropy, f.tokens, share * balance_of(layer, f),
                           chosen - static_cast<double>(offsets.back())});
}

StepRouting::Figures StepRouting::finish(int64_t micro_batches, bool loads_of_experts) {
  Figures figures;
  if (!any()) return figures;
  // Counts are whole numbers: any order of summation gives the same.
  rank_.ranks.all_reduce(buffer_of(std::span(counts_)), Reduce::sum, rank_.communication);
  rank_.communication.synchronize();
  const auto layers = static_cast<int64_t>(blocks_.size());
  const std::vector<double> sums =
      sum_micro_batches(rank_.ranks, rank_.communication, own_, micro_batches, layers * width);
  double balance = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    add_figures(i, sums, figures);
    balance += sums[i * width + 2];
    figures.dropped += sums[i * width + 3];
    if (!loads_of_experts) continue;
    const auto experts = static_cast<size_t>(experts_);
    const auto at = counts_.begin() + static_cast<int64_t>(i * experts);
    const double mean = std::accumulate(at, at + experts_, 0.0) / static_cast<double>(experts_);
    for (size_t e = 0; e < experts; ++e) {
      figures.named.emplace_back(cat("moe/load/", blocks_[i], "/", e),
                                 counts_[i * experts + e] / mean);
    }
  }
  figures.named.emplace_back("moe/max_vio", figures.max_vio);
  const bool losses =
      balance_.sequence + balance_.switch_loss + balance_.global_batch + balance_.z_loss > 0;
  if (losses) figures.named.emplace_back("moe/balance_loss", balance);
  if (rank_.config.model.moe.capacity > 0) {
    figures.named.emplace_back("moe/dropped", figures.dropped);
  }
  return figures;
}

void StepRouting::add_figures(size_t layer, const std::vector<double>& sums,
                              Figures& figures) const {
  const std::string& block = blocks_[layer];
  const auto begin = counts_.begin() + static_cast<int64_t>(layer) * experts_;
  const auto end = begin + experts_;
  const double total = std::accumulate(begin, end, 0.0);
  const double mean = total / static_cast<double>(experts_);
  const auto [least, most] = std::minmax_element(begin, end);
  const double max_vio = (*most - mean) / mean;
  figures.max_vio = std::max(figures.max_vio, max_vio);
  const std::span<float> bias = biases_[layer].span<float>();
  const auto [lowest, highest] = std::minmax_element(bias.begin(), bias.end());
  auto add = [&](const char* name, double value) {
    figures.named.emplace_back(cat("moe/", name, "/", block), value);
  };
  add("max_vio", max_vio);
  add("least_load", *least / mean);
  add("top_share", *most / total);
  add("entropy", sums[layer * width] / sums[layer * width + 1]);
  add("bias_range", static_cast<double>(*highest) - static_cast<double>(*lowest));
  if (rank_.config.model.moe.capacity > 0) add("dropped", sums[layer * width + 3]);
}

void StepRouting::move_biases(double speed) {
  if (speed == 0) return;
  const auto experts = static_cast<size_t>(experts_);
  std::vector<double> moves(experts);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const double* counts = counts_.data() + i * experts;
    const double mean =
        std::accumulate(counts, counts + experts, 0.0) / static_cast<double>(experts_);
    double sum = 0;
    for (size_t e = 0; e < experts; ++e) {
      moves[e] = counts[e] < mean ? 1 : counts[e] > mean ? -1 : 0;
      sum += moves[e];
    }
    const double centre = balance_.bias_centred ? sum / static_cast<double>(experts_) : 0;
    const std::span<float> bias = biases_[i].span<float>();
    for (size_t e = 0; e < experts; ++e) {
      bias[e] += static_cast<float>(speed * (moves[e] - centre));
    }
  }
}

}  // namespace shoestring
