#include "launcher/watchdog.h"

#include <cmath>

#include "core/text.h"

namespace shoestring {
namespace {

std::string text_of_histogram(const ProbeFigures& figures) {
  std::string text = figures.zeros > 0 ? cat("-inf:", figures.zeros) : "";
  for (int i = 0; i < ProbeFigures::buckets; ++i) {
    const double count = figures.amax[static_cast<size_t>(i)];
    if (count > 0) append(text, text.empty() ? "" : " ", i - 64, ":", count);
  }
  return text;
}

void add_figures(MetricsRecord& record, const std::string& matrix, LinearProduct product,
                 const ProbeFigures& f) {
  const std::string at = cat(matrix, "/", name_of(product));
  record.set(cat("fp8/error/", at), f.relative_error());
  record.set(cat("fp8/saturated/", at), f.values > 0 ? f.saturated / f.values : 0.0);
  record.set(cat("fp8/flushed/", at), f.values > 0 ? f.flushed / f.values : 0.0);
  record.set(cat("fp8/amax/", at), text_of_histogram(f));
}

// Multiplications of one token.
double work_of(const ParamInfo& p, const ModelConfig& model) {
  const auto n = static_cast<double>(p.shape.elements());
  const bool routed = p.name.find(".moe.experts.") != std::string::npos;
  return routed ? n * static_cast<double>(model.moe.chosen) / static_cast<double>(model.moe.experts)
                : n;
}

}  // namespace

Fp8Watchdog::Fp8Watchdog(const WatchdogConfig& config, const ModelConfig& model, Fp8Plan& plan)
    : config_(config), model_(model), plan_(plan), strikes_(plan.layers().size(), 0) {}

bool Fp8Watchdog::due(int64_t step) const {
  return config_.every > 0 && (step + 1) % config_.every == 0;
}

// Time is taken as that of the products of weights: those in FP8 at the chip's speed for FP8.
double Fp8Watchdog::slowdown_of(const Param& param) const {
  const double all = training_flop_per_token(model_, 0) / 6;
  double narrow = 0;
  for (const Fp8Layer* layer : plan_.layers()) {
    if (!plan_.fell_back(layer->param())) narrow += work_of(layer->param().info, model_);
  }
  const double now = all - narrow + narrow / config_.chip_speedup;
  return work_of(param.info, model_) * (1 - 1 / config_.chip_speedup) / now;
}

MetricsRecord Fp8Watchdog::finish(Communicator& ranks, Stream& stream,
                                  std::vector<Fp8Fallback>& fallen) {
  const std::vector<Fp8Layer*>& layers = plan_.layers();
  MetricsRecord record;
  // Relative errors by layer and product; negative: not made.
  std::vector<double> errors(layers.size() * num_linear_products, -1);
  if (ranks.rank() == 0) {
    for (size_t i = 0; i < layers.size(); ++i) {
      for (int p = 0; p < num_linear_products; ++p) {
        const auto product = static_cast<LinearProduct>(p);
        const auto found = probe_.figures().find({layers[i]->param().index, product});
        if (found == probe_.figures().end()) continue;
        errors[i * num_linear_products + static_cast<size_t>(p)] = found->second.relative_error();
        add_figures(record, layers[i]->param().info.name, product, found->second);
      }
    }
  }
  ranks.broadcast(buffer_of(std::span(errors)), 0, stream);
  stream.synchronize();
  probe_ = Fp8Probe();
  for (size_t i = 0; i < layers.size(); ++i) {
    const Param& param = layers[i]->param();
    if (plan_.fell_back(param)) continue;
    Fp8Fallback worst{
        .matrix = param.info.name, .product = {}, .error = -1, .limit = config_.limit};
    for (int p = 0; p < num_linear_products; ++p) {
      const double error = errors[i * num_linear_products + static_cast<size_t>(p)];
      if (!(error <= worst.error)) {  // NaN too
        worst.error = error;
        worst.product = name_of(static_cast<LinearProduct>(p));
      }
    }
    const bool failed = config_.limit > 0 && !(worst.error <= config_.limit);
    strikes_[i] = failed ? strikes_[i] + 1 : 0;
    if (strikes_[i] < config_.strikes) continue;
    worst.slower = slowdown_of(param);
    plan_.fall_back(param);
    fallen.push_back(std::move(worst));
  }
  int64_t all = 0;
  for (const Fp8Layer* layer : layers) all += plan_.fell_back(layer->param());
  record.set("fp8/fallen", all);
  return record;
}

Fp8Watchdog::State Fp8Watchdog::state() const {
  State state;
  const std::vector<Fp8Layer*>& layers = plan_.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    const Param& param = layers[i]->param();
    if (plan_.fell_back(param)) state.fallen.push_back(param.info.name);
    if (strikes_[i] > 0) state.strikes.emplace_back(param.info.name, strikes_[i]);
  }
  return state;
}

Fp8Watchdog::State Fp8Watchdog::restore(const State& state) {
  State rest = state;
  const std::vector<Fp8Layer*>& layers = plan_.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    const Param& param = layers[i]->param();
    const std::string& matrix = param.info.name;
    if (std::erase(rest.fallen, matrix) > 0) plan_.fall_back(param);
    std::erase_if(rest.strikes, [&](const auto& entry) {
      if (entry.first != matrix) return false;
      strikes_[i] = entry.second;
      return true;
    });
  }
  return rest;
}

}  // namespace shoestring
