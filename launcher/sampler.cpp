#include "launcher/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

struct Candidate {
  double logit;
  int32_t id;
};

bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options, uint64_t sequence)
    : options_(options), random_(options.seed, cat("sample/", sequence)) {
  // Written so that a value that is not a number fails too.
  const auto require = [](bool fits, const char* what, auto value) {
    if (!fits) fail_usage(cat(what, " but is ", value));
  };
  const SamplerOptions& o = options;
  require(o.temperature >= 0 && o.temperature < HUGE_VAL, "--temperature must be 0 or more",
          o.temperature);
  require(o.top_k >= 0, "--top-k must be 0 or more", o.top_k);
  require(o.top_p > 0 && o.top_p <= 1, "--top-p must be above 0 and at most 1", o.top_p);
  require(o.min_p >= 0 && o.min_p <= 1, "--min-p must be from 0 to 1", o.min_p);
  require(o.repetition_penalty > 0 && o.repetition_penalty < HUGE_VAL,
          "--repetition-penalty must be above 0", o.repetition_penalty);
}

int32_t Sampler::next(std::span<const float> logits, std::span<const int32_t> seen) {
  std::vector<Candidate> list(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      fail(cat("the logit of token ", i, " is not a number; the model's weights are broken"),
           no_place);
    }
    list[i] = {logits[i], static_cast<int32_t>(i)};
  }
  if (options_.repetition_penalty != 1) {
    std::vector<int32_t> once(seen.begin(), seen.end());
    std::sort(once.begin(), once.end());
    once.erase(std::unique(once.begin(), once.end()), once.end());
    for (int32_t id : once) {
      double& x = list.at(static_cast<size_t>(id)).logit;
      x = x > 0 ? x / options_.repetition_penalty : x * options_.repetition_penalty;
    }
  }
  if (options_.temperature == 0) {
    return std::min_element(list.begin(), list.end(), likelier)->id;
  }
  std::sort(list.begin(), list.end(), likelier);
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(list.size())) {
    list.resize(static_cast<size_t>(options_.top_k));
  }
  std::vector<double> weight(list.size());
  double total = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    weight[i] = std::exp((list[i].logit - list[0].logit) / options_.temperature);
    total += weight[i];
  }
  size_t kept = 0;
  double sum = 0;
  while (kept < list.size() && sum < options_.top_p * total &&
         (kept == 0 || weight[kept] >= options_.min_p)) {
    sum += weight[kept++];
  }
  double draw = random_.uniform(draws_++) * sum;
  for (size_t i = 0; i + 1 < kept; ++i) {
    draw -= weight[i];
    if (draw < 0) return list[i].id;
  }
  return list[kept - 1].id;
}

}  // namespace shoestring
