#include "core/ops/route.h"

#include <fstream>

#include "core/text.h"
#include "tests/core/ops/op_check.h"
#include "tests/core/ops/route_oracle.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Outcome {
  Tensor ids, gates, figures, dlogits;
};

Outcome run(Device& device, const RouteCase& c, Dtype dtype, const std::vector<double>& dgates) {
  Stream stream = Stream::immediate(device);
  const Tensor logits = make_tensor(device, {c.tokens, c.experts}, dtype, c.logits);
  Tensor bias;
  if (!c.bias.empty()) {
    bias = Tensor::from(device, {c.experts}, std::span<const float>(c.bias));
  }
  Route::Saved saved;
  const auto y = Route::forward(stream, c.a, {logits, bias}, saved);
  const Tensor dg = make_tensor(device, {c.tokens, c.a.chosen}, dtype, dgates);
  const auto dx = Route::grad_input(stream, c.a, saved, {Tensor(), dg, Tensor()});
  return {y[0], y[1], y[2], dx[0]};
}

RouteCase random_case(const Route::Attributes& a, int64_t tokens, int64_t experts, bool bias) {
  RouteCase c;
  c.a = a;
  c.tokens = tokens;
  c.experts = experts;
  c.logits = random_values(tokens * experts, 7, 2);
  for (double& x : c.logits) x = static_cast<float>(x);
  if (bias) {
    for (double b : random_values(experts, 8, 0.3)) c.bias.push_back(static_cast<float>(b));
  }
  return c;
}

// The four families' routers, each with losses.
std::vector<RouteCase> cases(const std::shared_ptr<const ExpertLoad>& load) {
  const Route::Attributes v3{.chosen = 3,
                             .groups = 4,
                             .groups_chosen = 2,
                             .sigmoid = true,
                             .scaling = 2.5,
                             .sequences = 3,
                             .sequence_factor = 0.7};
  const Route::Attributes v2{.chosen = 4,
                             .groups = 4,
                             .groups_chosen = 3,
                             .best_of_group = true,
                             .renormalise = false,
                             .scaling = 16,
                             .sequences = 2,
                             .sequence_factor = 0.3};
  const Route::Attributes mixtral{.chosen = 2, .micro_factor = 0.4, .z_factor = 0.2};
  const Route::Attributes qwen3{.chosen = 4, .sequences = 6, .global_factor = 0.9, .load = load};
  const Route::Attributes all{.chosen = 2,
                              .sigmoid = true,
                              .sequences = 2,
                              .sequence_factor = 0.5,
                              .micro_factor = 0.6,
                              .global_factor = 0.7,
                              .z_factor = 0.8};
  Route::Attributes all_chosen;
  all_chosen.chosen = 5;
  std::vector<RouteCase> list;
  list.push_back(random_case(v3, 15, 12, true));
  list.push_back(random_case(v2, 14, 12, false));
  list.push_back(random_case(mixtral, 9, 8, false));
  list.push_back(random_case(qwen3, 12, 12, false));
  list.push_back(random_case(all, 150, 6, true));
  list.push_back(random_case(all_chosen, 4, 5, false));
  return list;
}

std::shared_ptr<const ExpertLoad> some_load() {
  const auto load =
      std::make_shared<ExpertLoad>(ExpertLoad{.counts = random_values(12, 9), .tokens = 100});
  for (double& x : load->counts) x = 40 + std::floor(10 * x);
  return load;
}

TEST(Route, ChoosesAndWeighsAsDefinedInBothTypes) {
  Device device(DeviceKind::cpu, 0, 2);
  const auto load = some_load();
  for (const RouteCase& c : cases(load)) {
    const auto dgates = random_values(c.tokens * c.a.chosen, 3);
    for (Dtype dtype : {Dtype::f64, Dtype::f32}) {
      const Outcome o = run(device, c, dtype, dgates);
      const auto gates = values_of(o.gates);
      for (size_t t = 0; t < static_cast<size_t>(c.tokens); ++t) {
        const std::vector<size_t> want = choice_of(c, t, false);
        const std::vector<double> weights = gates_of(c, scores_of(c, c.logits, t), want);
        for (size_t k = 0; k < want.size(); ++k) {
          const size_t at = t * want.size() + k;
          EXPECT_EQ(o.ids.data<int32_t>()[at], static_cast<int32_t>(want[k])) << t << " " << k;
          EXPECT_NEAR(gates[at], weights[k], 30 * roundoff(dtype) * std::abs(weights[k]));
        }
      }
    }
  }
}

TEST(Route, FiguresAreSumsOverTheTokens) {
  Device device(DeviceKind::cpu, 0, 3);
  const auto load = some_load();
  for (const RouteCase& c : cases(load)) {
    const Outcome o = run(device, c, Dtype::f64, random_values(c.tokens * c.a.chosen, 3));
    const RouteFigures f = RouteFigures::of(o.figures);
    const auto tokens = static_cast<size_t>(c.tokens);
    const std::vector<double> counts = counts_of(c, 0, tokens, false);
    std::vector<double> p(c.n(), 0);
    double entropy = 0;
    for (size_t t = 0; t < tokens; ++t) {
      const std::vector<double> s = scores_of(c, c.logits, t);
      const double sum = std::accumulate(s.begin(), s.end(), 0.0);
      for (size_t i = 0; i < c.n(); ++i) {
        p[i] += s[i] / sum;
        entropy -= s[i] / sum * std::log(s[i] / sum);
      }
    }
    EXPECT_EQ(f.tokens, static_cast<double>(tokens));
    EXPECT_NEAR(f.entropy, entropy, 1e-10 * entropy);
    for (size_t i = 0; i < c.n(); ++i) {
      EXPECT_EQ(f.counts[i], counts[i]);
      EXPECT_NEAR(f.probabilities[i], p[i], 1e-10 * p[i]);
    }
    const bool sequence = c.a.sequence_factor != 0, z = c.a.z_factor != 0;
    EXPECT_NEAR(f.sequence, sequence ? sequence_loss(c, c.logits) : 0, 1e-10);
    EXPECT_NEAR(f.squared_lse / f.tokens, z ? z_loss(c, c.logits) : 0, 1e-9);
  }
}

TEST(Route, GradientByComplexStep) {
  Device device;
  const auto load = some_load();
  for (const RouteCase& c : cases(load)) {
    const auto dgates = random_values(c.tokens * c.a.chosen, 3);
    const Outcome o = run(device, c, Dtype::f64, dgates);
    // Probing every logit of the largest case would take long: the first of it stand for all.
    const size_t probes = std::min<size_t>(c.logits.size(), 150);
    const auto gradient = values_of(o.dlogits);
    const std::vector<double> point(c.logits.begin(),
                                    c.logits.begin() + static_cast<int64_t>(probes));
    expect_complex_step(
        [&](const std::vector<Complex>& moved) {
          std::vector<Complex> logits = complex_of(c.logits);
          std::copy(moved.begin(), moved.end(), logits.begin());
          return route_objective(c, logits, dgates);
        },
        point, {gradient.begin(), gradient.begin() + static_cast<int64_t>(probes)}, "dlogits");
  }
}

// Of transformers, where the layers that are pooled are one (tests/data/make_formula_goldens.py).
TEST(Route, TheBalanceLossIsThatOfTransformers) {
  std::ifstream file(SHOESTRING_SOURCE_DIR "/tests/data/balance_loss.txt");
  Device device;
  int cases = 0;
  int64_t tokens = 0, experts = 0, chosen = 0;
  for (double loss = 0; file >> tokens >> experts >> chosen >> loss; ++cases) {
    RouteCase c;
    c.a.chosen = chosen;
    c.a.micro_factor = 1;
    c.tokens = tokens;
    c.experts = experts;
    c.logits = std::vector<double>(static_cast<size_t>(tokens * experts));
    c.bias = {};
    std::vector<double> want(c.logits.size());
    for (double& x : c.logits) file >> x;
    for (double& x : want) file >> x;
    const Outcome o =
        run(device, c, Dtype::f64, std::vector<double>(static_cast<size_t>(tokens * chosen)));
    const RouteFigures f = RouteFigures::of(o.figures);
    double value = 0, largest = 0;
    for (size_t i = 0; i < c.n(); ++i) value += f.counts[i] * f.probabilities[i];
    value *= static_cast<double>(experts) / (f.tokens * f.tokens);
    EXPECT_NEAR(value, loss, 1e-6 * loss);  // theirs counts in f32
    for (double x : want) largest = std::max(largest, std::abs(x));
    const auto got = values_of(o.dlogits);
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got[i], want[i], 1e-6 * largest) << cases << " " << i;
    }
  }
  EXPECT_EQ(cases, 5);
}

TEST(Route, F32GradientIsNearTheF64One) {
  Device device(DeviceKind::cpu, 0, 2);
  const auto load = some_load();
  for (const RouteCase& c : cases(load)) {
    const auto dgates = random_values(c.tokens * c.a.chosen, 3);
    const auto want = values_of(run(device, c, Dtype::f64, dgates).dlogits);
    double largest = 0;
    for (double x : want) largest = std::max(largest, std::abs(x));
    expect_near(run(device, c, Dtype::f32, dgates).dlogits, want, {64, 1e-5 * largest}, "dlogits");
  }
}

TEST(Route, SameBitsOnAnyNumberOfThreads) {
  const auto load = some_load();
  const RouteCase c = cases(load)[4];
  const auto dgates = random_values(c.tokens * c.a.chosen, 3);
  Device one(DeviceKind::cpu, 0, 1);
  const Outcome first = run(one, c, Dtype::f32, dgates);
  for (int threads = 2; threads <= 4; ++threads) {
    Device device(DeviceKind::cpu, 0, threads);
    const Outcome other = run(device, c, Dtype::f32, dgates);
    expect_same_bits(other.ids, first.ids, "ids");
    expect_same_bits(other.gates, first.gates, "gates");
    expect_same_bits(other.figures, first.figures, "figures");
    expect_same_bits(other.dlogits, first.dlogits, "dlogits");
  }
}

// Equal scores go to the lower expert, and the bias moves the choice but not the gate.
TEST(Route, TiesAndBias) {
  Device device;
  RouteCase c;
  c.a.chosen = 2;
  c.a.sigmoid = true;
  c.tokens = 1;
  c.experts = 4;
  c.logits = {0, 0, 0, 0};
  c.bias = {};
  const std::vector<double> dgates = {1, 1};
  Outcome o = run(device, c, Dtype::f32, dgates);
  EXPECT_EQ(o.ids.data<int32_t>()[0], 0);
  EXPECT_EQ(o.ids.data<int32_t>()[1], 1);
  c.bias = {0, 0, 0.25f, -1};
  o = run(device, c, Dtype::f32, dgates);
  EXPECT_EQ(o.ids.data<int32_t>()[0], 2);
  EXPECT_EQ(o.ids.data<int32_t>()[1], 0);
  EXPECT_FLOAT_EQ(o.gates.data<float>()[0], 0.5f);
  EXPECT_FLOAT_EQ(o.gates.data<float>()[1], 0.5f);
}

// With all biased scores below zero, a mask of zeros would choose from the closed groups.
TEST(Route, ClosedGroupsAreOutWhateverTheirValue) {
  Device device;
  RouteCase c;
  c.a.chosen = 2;
  c.a.groups = 2;
  c.a.groups_chosen = 1;
  c.a.sigmoid = true;
  c.tokens = 1;
  c.experts = 4;
  c.logits = {1, 2, 0, 0};
  c.bias = {-5, -5, -5, -5};
  const Outcome o = run(device, c, Dtype::f32, {1, 1});
  EXPECT_EQ(o.ids.data<int32_t>()[0], 1);
  EXPECT_EQ(o.ids.data<int32_t>()[1], 0);
}

// A router gone wrong ends in a loss that is not finite, not in a wild index.
TEST(Route, SurvivesNaN) {
  Device device;
  for (bool sigmoid : {false, true}) {
    RouteCase c;
    c.a.chosen = 2;
    c.a.groups = 2;
    c.a.groups_chosen = 1;
    c.a.sigmoid = sigmoid;
    c.tokens = 2;
    c.experts = 4;
    c.logits = {NAN, NAN, NAN, NAN, 0, NAN, 1, 2};
    c.bias = {};
    const Outcome o = run(device, c, Dtype::f32, {1, 1, 1, 1});
    for (int32_t id : o.ids.span<int32_t>()) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, 4);
    }
    EXPECT_NE(o.ids.data<int32_t>()[0], o.ids.data<int32_t>()[1]);
  }
}

TEST(Route, RefusesWhatDoesNotFit) {
  Device device;
  Stream stream = Stream::immediate(device);
  Route::Saved saved;
  const Tensor logits = Tensor::zeros(device, {6, 4}, Dtype::f32);
  auto forward = [&](const Route::Attributes& a, const Tensor& x, const Tensor& bias) {
    Route::forward(stream, a, {x, bias}, saved);
  };
  EXPECT_NO_THROW(forward({}, logits, Tensor()));
  EXPECT_THROW(forward({.chosen = 5}, logits, Tensor()), Error);
  EXPECT_THROW(forward({.groups = 3}, logits, Tensor()), Error);
  EXPECT_THROW(forward({.groups = 4, .groups_chosen = 2}, logits, Tensor()), Error);
  EXPECT_THROW(forward({.sequences = 4}, logits, Tensor()), Error);
  EXPECT_THROW(forward({}, Tensor::zeros(device, {6, 4}, Dtype::bf16), Tensor()), Error);
  EXPECT_THROW(forward({}, logits, Tensor::zeros(device, {3}, Dtype::f32)), Error);
}

}  // namespace
}  // namespace shoestring
