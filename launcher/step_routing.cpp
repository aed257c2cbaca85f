#include "launcher/step_routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/text.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

constexpr int64_t width = 4;  // entropy, tokens, balance losses, dropped
constexpr std::string_view bias_suffix = ".moe.router.bias";

}  // namespace

StepRouting::StepRouting(RankState& rank) : rank_(rank), balance_(rank.config.model.moe.balance) {
  const ModelConfig& model = rank.config.model;
  experts_ = model.moe.experts;
  for (const auto& [name, shape] : states_of(model, whole_model(model))) {
    if (!name.ends_with(bias_suffix)) continue;
    blocks_.push_back(name.substr(0, name.size() - bias_suffix.size()));
    biases_.emplace_back();
    for (const ModelState& state : rank.store->states()) {
      if (state.name == name) biases_.back() = state.values;
    }
  }
}

void StepRouting::begin() {
  counts_.assign(blocks_.size() * static_cast<size_t>(experts_), 0);
  own_ = {.width = static_cast<int64_t>(blocks_.size()) * width};
  if (!with_loads()) return;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!biases_[i]) continue;
    const std::vector<double> none(static_cast<size_t>(experts_), 0);
    add_load(rank_.loads[blocks_[i]] = {}, none, 0);
  }
}

void StepRouting::keep(const Tape* tape, const MicroBatchShare& of) {
  if (!any()) return;
  if (with_loads()) share_loads(tape);
  if (tape == nullptr) return;
  own_.micro.push_back(of.micro);
  own_.figures.resize(own_.figures.size() + static_cast<size_t>(own_.width), 0);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (tape->told().contains(blocks_[i] + ".routing")) add_layer(i, *tape, of);
  }
}

// The counts of this slot's micro-batches on all ranks of these stages join those of the slots
// before. Ranks that share a sequence out were told the same of it: one of them speaks.
void StepRouting::share_loads(const Tape* tape) {
  const auto stride = static_cast<size_t>(experts_) + 1;
  std::vector<double> slot(blocks_.size() * stride, 0);
  for (size_t i = 0; tape != nullptr && i < blocks_.size(); ++i) {
    const auto told = tape->told().find(blocks_[i] + ".routing");
    if (told == tape->told().end() || !rank_.part->tells_sequences()) continue;
    const RouteFigures f = RouteFigures::of(told->second);
    std::copy(f.counts.begin(), f.counts.end(), slot.begin() + static_cast<int64_t>(i * stride));
    slot[(i + 1) * stride - 1] = f.tokens;
  }
  if (rank_.part->statistics().size() > 1) {
    rank_.part->statistics().all_reduce(buffer_of(std::span(slot)), Reduce::sum, rank_.compute);
    rank_.compute.synchronize();
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!biases_[i]) continue;
    const std::span own = std::span(slot).subspan(i * stride, stride);
    add_load(rank_.loads.at(blocks_[i]), own.first(stride - 1), own.back());
  }
}

// The losses of core/ops/route.h with their coefficients.
double StepRouting::balance_of(size_t layer, const RouteFigures& f) const {
  const auto experts = static_cast<double>(experts_);
  const ExpertLoad* load = with_loads() ? rank_.loads.at(blocks_[layer]).get() : nullptr;
  double micro = 0, global = 0;
  for (size_t e = 0; e < f.counts.size(); ++e) {
    const double mean = f.probabilities[e] / f.tokens;
    micro += f.counts[e] / f.tokens * mean;
    if (load) global += load->counts[e] / load->tokens * mean;
  }
  return balance_.sequence * f.sequence + balance_.switch_loss * experts * micro +
         balance_.global_batch * experts * global + balance_.z_loss * f.squared_lse / f.tokens;
}

void StepRouting::add_layer(size_t layer, const Tape& tape, const MicroBatchShare& of) {
  const RouteFigures f = RouteFigures::of(tape.told().at(blocks_[layer] + ".routing"));
  const std::span<int32_t> offsets = tape.told().at(blocks_[layer] + ".offsets").span<int32_t>();
  double* row =
      own_.figures.data() + own_.figures.size() - own_.width + static_cast<int64_t>(layer) * width;
  row[3] -= static_cast<double>(offsets.back());  // of this rank's tokens
  if (!rank_.part->tells_sequences()) return;
  for (size_t e = 0; e < f.counts.size(); ++e) {
    counts_[layer * f.counts.size() + e] += f.counts[e];
    row[3] += f.counts[e];
  }
  row[0] += f.entropy;
  row[1] += f.tokens;
  row[2] += of.share * balance_of(layer, f);
}

// The range of each block's biases, from a rank that has them.
void StepRouting::gather_ranges() {
  ranges_.assign(blocks_.size(), 0);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!biases_[i]) continue;
    const std::span<float> bias = biases_[i].span<float>();
    const auto [lowest, highest] = std::minmax_element(bias.begin(), bias.end());
    ranges_[i] = *highest - *lowest;
  }
  rank_.ranks.all_reduce(buffer_of(std::span(ranges_)), Reduce::max, rank_.communication);
}

StepRouting::Figures StepRouting::finish(bool loads_of_experts) {
  Figures figures;
  if (!any()) return figures;
  // Counts are whole numbers: any order of summation gives the same.
  rank_.ranks.all_reduce(buffer_of(std::span(counts_)), Reduce::sum, rank_.communication);
  gather_ranges();
  const Awaiting waits("counts of experts");
  rank_.communication.synchronize();
  const std::vector<double> sums = sum_rows(rank_.ranks, rank_.communication, own_);
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
  auto add = [&](const char* name, double value) {
    figures.named.emplace_back(cat("moe/", name, "/", block), value);
  };
  add("max_vio", max_vio);
  add("least_load", *least / mean);
  add("top_share", *most / total);
  add("entropy", sums[layer * width] / sums[layer * width + 1]);
  add("bias_range", static_cast<double>(ranges_[layer]));
  if (rank_.config.model.moe.capacity > 0) add("dropped", sums[layer * width + 3]);
}

void StepRouting::move_biases(double speed) {
  if (speed == 0) return;
  const auto experts = static_cast<size_t>(experts_);
  std::vector<double> moves(experts);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!biases_[i]) continue;
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
