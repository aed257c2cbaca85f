#pragma once
// The definition of routing in plain loops, for the tests: choices by sorting, gates and losses on
// any scalar, so that complex numbers give their derivatives.

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <vector>

#include "core/ops/route.h"

namespace shoestring::testing {

struct RouteCase {
  Route::Attributes a;
  int64_t tokens = 0, experts = 0;
  std::vector<double> logits;
  std::vector<float> bias;  // empty: none

  size_t n() const { return static_cast<size_t>(experts); }
  size_t chosen() const { return static_cast<size_t>(a.chosen); }
};

template <class S>
std::vector<S> scores_of(const RouteCase& c, const std::vector<S>& logits, size_t t) {
  using std::exp;
  std::vector<S> s(logits.begin() + static_cast<int64_t>(t * c.n()),
                   logits.begin() + static_cast<int64_t>((t + 1) * c.n()));
  S sum = 0;
  for (S& x : s) {
    x = c.a.sigmoid ? 1.0 / (1.0 + exp(-x)) : exp(x);
    sum += x;
  }
  if (!c.a.sigmoid) {
    for (S& x : s) x /= sum;
  }
  return s;
}

inline std::vector<size_t> falling(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

// The choice of one token; `plain`: by the scores alone.
inline std::vector<size_t> choice_of(const RouteCase& c, size_t t, bool plain) {
  std::vector<double> value = scores_of(c, c.logits, t);
  if (!plain) {
    for (size_t i = 0; i < c.bias.size(); ++i) value[i] += static_cast<double>(c.bias[i]);
    const auto groups = static_cast<size_t>(c.a.groups);
    const size_t size = c.n() / groups;
    std::vector<double> score(groups);
    for (size_t g = 0; g < groups; ++g) {
      std::vector<double> group(value.begin() + static_cast<int64_t>(g * size),
                                value.begin() + static_cast<int64_t>((g + 1) * size));
      std::sort(group.rbegin(), group.rend());
      score[g] = c.a.best_of_group || size == 1 ? group[0] : group[0] + group[1];
    }
    const std::vector<size_t> order = falling(score);
    for (size_t i = static_cast<size_t>(c.a.groups_chosen); i < groups; ++i) {
      std::fill_n(value.begin() + static_cast<int64_t>(order[i] * size), size, -INFINITY);
    }
  }
  std::vector<size_t> ids = falling(value);
  ids.resize(c.chosen());
  return ids;
}

template <class S>
std::vector<S> gates_of(const RouteCase& c, const std::vector<S>& scores,
                        const std::vector<size_t>& ids) {
  S sum = 1e-20;
  for (size_t id : ids) sum += scores[id];
  std::vector<S> gates;
  for (size_t id : ids) {
    gates.push_back(c.a.scaling * (c.a.renormalise ? scores[id] / sum : scores[id]));
  }
  return gates;
}

// Choices a token range made of each expert.
inline std::vector<double> counts_of(const RouteCase& c, size_t begin, size_t end, bool plain) {
  std::vector<double> counts(c.n(), 0);
  for (size_t t = begin; t < end; ++t) {
    for (size_t id : choice_of(c, t, plain)) counts[id] += 1;
  }
  return counts;
}

// sum over experts of f_i * (mean of p_i over the tokens).
template <class S>
S balance(const RouteCase& c, const std::vector<S>& logits, const std::vector<double>& f,
          std::pair<size_t, size_t> tokens) {
  S loss = 0;
  for (size_t t = tokens.first; t < tokens.second; ++t) {
    const std::vector<S> s = scores_of(c, logits, t);
    const S sum = std::accumulate(s.begin(), s.end(), S(0));
    for (size_t i = 0; i < c.n(); ++i) loss += f[i] * s[i] / sum;
  }
  return loss / static_cast<double>(tokens.second - tokens.first);
}

template <class S>
S sequence_loss(const RouteCase& c, const std::vector<S>& logits) {
  const auto length = static_cast<size_t>(c.tokens / c.a.sequences);
  S loss = 0;
  for (size_t b = 0; b < static_cast<size_t>(c.a.sequences); ++b) {
    const size_t begin = b * length, end = begin + length;
    std::vector<double> f = counts_of(c, begin, end, true);
    for (double& x : f) {
      x *= static_cast<double>(c.experts) / static_cast<double>(c.chosen() * length);
    }
    loss += balance(c, logits, f, {begin, end});
  }
  return loss / static_cast<double>(c.a.sequences);
}

template <class S>
S z_loss(const RouteCase& c, const std::vector<S>& logits) {
  using std::exp;
  using std::log;
  S loss = 0;
  for (size_t t = 0; t < static_cast<size_t>(c.tokens); ++t) {
    S sum = 0;
    for (size_t i = 0; i < c.n(); ++i) sum += exp(logits[t * c.n() + i]);
    loss += log(sum) * log(sum);
  }
  return loss / static_cast<double>(c.tokens);
}

// What the op's gradient is the derivative of: sum of dgates * gates and the losses.
template <class S>
S route_objective(const RouteCase& c, const std::vector<S>& logits,
                  const std::vector<double>& dgates) {
  const auto tokens = static_cast<size_t>(c.tokens);
  S loss = 0;
  for (size_t t = 0; t < tokens; ++t) {
    const std::vector<S> gates = gates_of(c, scores_of(c, logits, t), choice_of(c, t, false));
    for (size_t k = 0; k < c.chosen(); ++k) loss += dgates[t * c.chosen() + k] * gates[k];
  }
  std::vector<double> micro = counts_of(c, 0, tokens, false), global = micro;
  for (double& x : micro) x *= static_cast<double>(c.experts) / static_cast<double>(c.tokens);
  if (c.a.load) {
    for (size_t i = 0; i < c.n(); ++i) global[i] = c.a.load->counts[i];
  }
  const double seen = c.a.load ? c.a.load->tokens : static_cast<double>(c.tokens);
  for (double& x : global) x *= static_cast<double>(c.experts) / seen;
  loss += c.a.sequence_factor * sequence_loss(c, logits);
  loss += c.a.micro_factor * balance(c, logits, micro, {0, tokens});
  loss += c.a.global_factor * balance(c, logits, global, {0, tokens});
  return loss + c.a.z_factor * z_loss(c, logits);
}

}  // namespace shoestring::testing
