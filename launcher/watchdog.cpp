#include "launcher/watchdog.h"

#include <cmath>

#include "core/text.h"
#include "parallel/comm/whereabouts.h"

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
    : config_(config), model_(model), plan_(plan) {
  for (ParamInfo& info : parameters_of(model, whole_model(model))) {
    if (!multiplies_in_fp8(plan.recipe(), info, model.layers)) continue;
    Watched& matrix = matrices_.emplace_back(Watched{.info = std::move(info)});
    for (const Fp8Layer* layer : plan.layers()) {
      if (layer->param().info.name == matrix.info.name) matrix.here = &layer->param();
    }
  }
}

bool Fp8Watchdog::due(int64_t step) const {
  return config_.every > 0 && (step + 1) % config_.every == 0;
}

// Time is taken as that of the products of weights: those in FP8 at the chip's speed for FP8.
double Fp8Watchdog::slowdown_of(const ParamInfo& info) const {
  const double all = training_flop_per_token(model_, 0) / 6;
  double narrow = 0;
  for (const Watched& matrix : matrices_) {
    if (!matrix.fell) narrow += work_of(matrix.info, model_);
  }
  const double now = all - narrow + narrow / config_.chip_speedup;
  return work_of(info, model_) * (1 - 1 / config_.chip_speedup) / now;
}

void Fp8Watchdog::fall(Watched& matrix) {
  matrix.fell = true;
  if (matrix.here) plan_.fall_back(*matrix.here);
}

MetricsRecord Fp8Watchdog::finish(Communicator& ranks, Stream& stream,
                                  std::vector<Fp8Fallback>& fallen) {
  MetricsRecord record;
  // Relative errors by matrix and product; negative: not made.
  std::vector<double> errors(matrices_.size() * num_linear_products, -1);
  const auto each = [&](auto f) {
    for (size_t i = 0; i < errors.size(); ++i) {
      f(matrices_[i / num_linear_products], static_cast<LinearProduct>(i % num_linear_products),
        errors[i]);
    }
  };
  each([&](const Watched& matrix, LinearProduct product, double& error) {
    if (!matrix.here) return;
    const auto found = probe_.figures().find({matrix.here->index, product});
    if (found == probe_.figures().end()) return;
    error = found->second.relative_error();
    if (ranks.rank() == 0) add_figures(record, matrix.info.name, product, found->second);
  });
  ranks.all_reduce(buffer_of(std::span(errors)), Reduce::max, stream);
  const Awaiting waits("errors of the watchdog");
  stream.synchronize();
  probe_ = Fp8Probe();
  std::vector<Fp8Fallback> worst;
  for (const Watched& matrix : matrices_) {
    worst.push_back(
        {.matrix = matrix.info.name, .product = {}, .error = -1, .limit = config_.limit});
  }
  each([&](const Watched& matrix, LinearProduct product, double error) {
    if (!(error < 0)) {
      record.set(cat("fp8/error/", matrix.info.name, "/", name_of(product)), error);
    }
    Fp8Fallback& largest = worst[static_cast<size_t>(&matrix - matrices_.data())];
    if (error <= largest.error) return;  // NaN is not
    largest.error = error;
    largest.product = name_of(product);
  });
  int64_t all = 0;
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Watched& matrix = matrices_[i];
    const bool failed = config_.limit > 0 && !(worst[i].error <= config_.limit);
    if (!matrix.fell) matrix.strikes = failed ? matrix.strikes + 1 : 0;
    if (!matrix.fell && matrix.strikes >= config_.strikes) {
      worst[i].slower = slowdown_of(matrix.info);
      fall(matrix);
      fallen.push_back(std::move(worst[i]));
    }
    all += matrix.fell ? 1 : 0;
  }
  record.set("fp8/fallen", all);
  return record;
}

Fp8Watchdog::State Fp8Watchdog::state() const {
  State state;
  for (const Watched& matrix : matrices_) {
    if (matrix.fell) state.fallen.push_back(matrix.info.name);
    if (matrix.strikes > 0) state.strikes.emplace_back(matrix.info.name, matrix.strikes);
  }
  return state;
}

Fp8Watchdog::State Fp8Watchdog::restore(const State& state) {
  State rest = state;
  for (Watched& matrix : matrices_) {
    if (std::erase(rest.fallen, matrix.info.name) > 0) fall(matrix);
    std::erase_if(rest.strikes, [&](const auto& entry) {
      if (entry.first != matrix.info.name) return false;
      matrix.strikes = entry.second;
      return true;
    });
  }
  return rest;
}

}  // namespace shoestring
